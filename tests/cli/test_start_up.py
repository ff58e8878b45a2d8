"""What only tells names starts at once: nothing that takes long to import is imported for it."""

import subprocess
import sys

_HEAVY = {
    "torch",
    "transformers",
    "pandas",
    "zarr",
    "pyarrow",
    "matplotlib",
    "datasets",
    "scipy",
    "jaxtyping",
}
_CALLS = (
    ("--version",),
    ("--help",),
    *((name, "--help") for name in ("run", "train", "encode", "heads", "describe", "experiment", "verify")),
    ("encoders",),
    ("datasets",),
    ("encoders", "openclip_z"),
)


def test_names_are_told_without_what_is_heavy():
    code = (
        "import sys; from residual.cli import main\n"
        f"for words in {_CALLS!r}:\n"
        "    sys.argv = ['residual', *words]\n"
        "    try: main()\n"
        "    except SystemExit as stop: code = stop.code or 0\n"
        f"    print('loaded', words, sorted({_HEAVY!r} & set(sys.modules)), code, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "openclip_l" in done.stdout
    told = [line for line in done.stderr.splitlines() if line.startswith("loaded")]
    assert told == [f"loaded {words} [] {2 * ('openclip_z' in words)}" for words in _CALLS]
