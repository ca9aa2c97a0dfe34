"""What released code that is in no package computed once: tests/golden/released_code.json has inputs and provenance."""

import json
import pathlib

RELEASED = json.loads(pathlib.Path("tests/golden/released_code.json").read_text())
