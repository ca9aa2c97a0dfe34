import pathlib

import pytest

from t5x_like import configs
from t5x_like.configurables import CONFIGURABLES

MESHES = sorted(pathlib.Path("configs/meshes").glob("*.gin"))
IN_STAGES = ["--gin.Decoder.layer_loop=@pipelined()"]


@pytest.mark.parametrize("path", MESHES, ids=lambda path: path.stem)
def test_every_mesh_goes_after_a_run_and_all_that_it_says_is_used(path):
    overrides = ["--gin.Pipeline.directory='...'", *(IN_STAGES if path.stem.startswith("pipeline") else [])]
    files = ["runs/shakespeare_char.gin", f"meshes/{path.name}"]
    resolved = configs.resolve(
        CONFIGURABLES, files, overrides, root="train", search_paths=["configs"], supplied=["model_dir"]
    )
    assert f"meshes/{path.name}" in resolved.text
