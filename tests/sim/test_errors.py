"""InputError: what it says, and how it is told from the user's place."""

import pickle

from bssim.errors import InputError, unknown_name


def test_an_error_names_place_value_and_expectation():
    error = InputError("--tp", 3, "a divisor of 32")
    assert str(error) == "--tp: found 3; expected a divisor of 32"
    assert (error.where, error.problem, error.expected) == ("--tp", "found 3", "a divisor of 32")


def test_a_problem_that_is_no_value_and_one_without_a_place():
    assert str(InputError.saying("a.yaml", "not valid YAML")) == "a.yaml: not valid YAML"
    assert str(InputError("nothing to do")) == "nothing to do"


def test_an_error_moves_to_the_place_of_the_user_and_keeps_a_place_inside_a_file():
    own = unknown_name("hardware", "a10", ["a100"]).blamed_on("sweep.yaml:3: hardware", "hardware")
    assert str(own).startswith("sweep.yaml:3: hardware: found 'a10' (did you mean 'a100'?)")
    inside = InputError("gpu.yaml: memory", "'x'", "a number")
    moved = inside.blamed_on("sweep.yaml:3: hardware", "hardware")
    assert str(moved) == ("sweep.yaml:3: hardware: gpu.yaml: memory: found 'x'; expected a number")


def test_an_error_is_one_short_line_whatever_the_value():
    for found in ("x" * 10**6, "line\n" * 10**4, 10**3000):
        error = InputError(f"a.csv:2: {found}"[: 10**5], repr(found), "a number")
        assert str(error).startswith("a.csv:2: ")
        assert str(error).endswith("; expected a number")
        assert len(str(error)) < 1000
        assert "\n" not in str(InputError.saying("a", str(found)))
    assert len(str(unknown_name("model", "x" * 10**8, ["a", "b"]))) < 500


def test_an_error_survives_the_way_back_from_a_worker_process():
    error = pickle.loads(pickle.dumps(InputError("dp", 0, "at least 1")))
    assert (str(error), error.where) == ("dp: found 0; expected at least 1", "dp")
