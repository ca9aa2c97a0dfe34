"""Pages with the lines that RefinedWeb's and C4's rules are about, in every combination, for stored results."""

import random
from collections.abc import Sequence

LINES = (
    "The first railway across the valley was opened in the spring of that year.",
    "Farmers sold their milk to dairies in the city, which they had never done before.",
    "READ THE NEWS NOW and here",
    "Read The News",
    "3 likes",
    "* 1,200 Followers *",
    "2.5k views today",
    "12345",
    "12 345",
    "word",
    "--",
    "",
    "3 items in cart",
    "items in cart",
    "You have 12 items in cart and may go on to pay for all of them here today",
    "All about the harvest Read more...",
    "Read more...",
    "Sign-in to see what your friends have written",
    "sign-in",
    "Please Sign-in here",
)


C4_LINES = (
    *LINES[:2],
    "This line has no mark at its end",
    "This one ends in three dots...",
    "Too short.",
    'He said "no."',
    "See what he said [12] to us all.",
    "[edit] A heading that stays long enough.",
    "Please enable Javascript in your browser.",
    "We use cookies and you agree to that.",
    "Read our privacy policy before you go on.",
    "int main() { return 0; } is all of it.",
    "Lorem ipsum dolor sit amet and so on.",
    f"One word is {'x' * 1001} long.",
    "A long line. With two sentences! And a third one?",
    "word " * 60 + "end.",
)


def pages(lines_of_rules: Sequence[str] = LINES, count: int = 120) -> list[str]:
    """Mostly sentences, so that some pages stay."""
    rng = random.Random(0)
    made = ["", "\n", *lines_of_rules]
    for _ in range(count):
        share = rng.choice([0.0, 0.02, 0.1, 0.5])
        lines = [
            rng.choice(lines_of_rules) if rng.random() < share else rng.choice(lines_of_rules[:2])
            for _ in range(rng.randint(3, 60))
        ]
        made.append("\n".join(lines))
    return made
