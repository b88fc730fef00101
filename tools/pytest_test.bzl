"""A test rule that runs a file under pytest."""

load("@rules_python//python:py_test.bzl", "py_test")

def pytest_test(name, srcs, deps = [], size = "medium", **kwargs):
    """Runs the tests in `srcs` with pytest.

    Args:
      name: Name of the target.
      srcs: The file that holds the tests.
      deps: What it imports.
      size: Size of the test.
      **kwargs: Passed on to `py_test`.
    """
    py_test(
        name = name,
        size = size,
        srcs = srcs + ["//tests:run_pytest.py"],
        args = ["$(location %s)" % src for src in srcs],
        data = srcs + ["//:pyproject.toml"],
        main = "//tests:run_pytest.py",
        deps = depset(deps + ["@pip//pytest", "@pip//pytest_timeout"]).to_list(),
        **kwargs
    )
