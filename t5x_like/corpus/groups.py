"""Words for groups of people, dialects and occupations in English, for `GroupMentions`: short, public, to be replaced.

A list decides what is found, so a report says which list it used. None of these words is a judgement or a reason to
drop a document; slurs are left to the lists of `WordList`.
"""


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split(" "))


GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "gender": {
        "women": _words("she her hers herself woman women girl girls mother mothers daughter sister wife aunt queen"),
        "men": _words("he him his himself man men boy boys father fathers son brother husband uncle king"),
        "trans people": ("transgender", "trans woman", "trans man", "nonbinary", "non-binary"),
    },
    "religion": {
        "Christians": ("christian", "christians", "catholic", "catholics", "protestant", "protestants"),
        "Muslims": ("muslim", "muslims", "islamic"),
        "Jews": ("jewish", "jews"),
        "Hindus": ("hindu", "hindus"),
        "Buddhists": ("buddhist", "buddhists"),
        "atheists": ("atheist", "atheists"),
    },
    "origin": {
        "Black people": ("black people", "black women", "black men", "african american", "african americans"),
        "White people": ("white people", "white women", "white men", "caucasian", "caucasians"),
        "Asians": ("asian", "asians", "asian american", "asian americans"),
        "Latin Americans": ("hispanic", "hispanics", "latino", "latina", "latinos", "latinas"),
        "Arabs": ("arab", "arabs"),
        "Native peoples": (
            "native american",
            "native americans",
            "indigenous people",
            "indigenous peoples",
            "aboriginal",
        ),
        "immigrants": ("immigrant", "immigrants", "refugee", "refugees"),
    },
    "orientation": {
        "gay and lesbian people": ("gay", "lesbian", "lesbians", "homosexual", "homosexuals", "same-sex"),
        "bisexual people": ("bisexual", "bisexuals"),
        "straight people": ("heterosexual", "heterosexuals", "straight people"),
    },
    "age": {
        "old people": ("elderly", "old people", "older people", "pensioner", "pensioners", "senior citizens"),
        "young people": ("teenager", "teenagers", "young people", "adolescent", "adolescents"),
    },
    "disability": {
        "disabled people": ("disabled", "disability", "disabilities", "wheelchair", "deaf", "autistic"),
    },
    "dialect": {
        "African American English": ("ain't", "finna", "imma", "gon'", "y'all", "tryna", "bruh", "aight"),
        "Scots": ("wee", "bairn", "bairns", "cannae", "dinnae", "didnae", "isnae", "aye", "lassie", "laddie"),
        "Singapore English": ("lah", "leh", "lor", "meh", "alamak", "kiasu", "shiok"),
        "Indian English": ("lakh", "lakhs", "crore", "crores", "prepone", "timepass", "yaar"),
    },
}
OCCUPATIONS = _words(
    "accountant actor artist baker carpenter chef cleaner clerk coach composer cook dancer designer developer doctor "
    "driver economist editor electrician engineer farmer firefighter guard hairdresser housekeeper janitor journalist "
    "judge lawyer librarian manager mechanic midwife musician nurse painter pharmacist photographer pilot plumber "
    "poet politician professor programmer receptionist reporter researcher sailor scientist secretary singer soldier "
    "surgeon tailor teacher translator writer"
)
