import jax
import pytest

from t5x_like.partitioning.mesh import MESH_AXES, make_mesh, mesh_sizes


def test_the_axis_that_is_minus_one_takes_what_is_left():
    mesh = make_mesh(data=-1, fsdp=2, tensor=2)
    assert mesh.axis_names == MESH_AXES
    assert dict(mesh.shape) == {"stage": 1, "data": 2, "fsdp": 2, "expert": 1, "context": 1, "tensor": 2}
    assert sorted(device.id for device in mesh.devices.flat) == list(range(8))


def test_axes_are_placed_by_the_compiler():
    assert set(make_mesh().axis_types) == {jax.sharding.AxisType.Auto}


def test_a_mesh_may_use_some_of_the_devices():
    assert make_mesh(data=1, devices=jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"data": 3}, "data=3 needs 3 devices and there are 8; make the product equal, or set one axis to -1"),
        ({"data": 4, "fsdp": 4}, "data=4 x fsdp=4 needs 16 devices and there are 8"),
        ({"fsdp": 3}, "the 8 devices do not divide by 3"),
        ({"data": -1, "fsdp": -1}, "only one axis may be -1, give all but one of data, fsdp a number"),
        ({"tensor": 0}, "{'tensor': 0} must be whole numbers from 1"),
        ({"data": 2.0}, "{'data': 2.0} must be whole numbers from 1"),
        ({"context": 3}, "the 8 devices do not divide by 3"),
    ],
)
def test_a_mesh_that_cannot_be_says_why(sizes, message):
    with pytest.raises(ValueError) as error:
        make_mesh(**sizes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_sizes_need_no_devices():
    assert mesh_sizes({"data": -1, "tensor": 8}, 256) == {"data": 32, "tensor": 8}
