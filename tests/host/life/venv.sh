# A virtual environment; pip installs a wheel that is made here, without a network, and takes it away again. It is
# LIFE_PYTHON's pip: to put one into the environment takes a minute where the processor is emulated.
set -euo pipefail
mkdir world
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1 PIP_ROOT_USER_ACTION=ignore
/usr/bin/python3 -m venv --without-pip environment
/usr/bin/python3 - <<'P'
import zipfile
files = {
    "greet/__init__.py": "def main():\n    print('hello from a wheel')\n",
    "greet-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n",
    "greet-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "greet-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greet:main\n",
}
files["greet-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in [*files, "greet-1.0.dist-info/RECORD"])
with zipfile.ZipFile("greet-1.0-py3-none-any.whl", "w") as wheel:
    for name, text in files.items():
        wheel.writestr(zipfile.ZipInfo(name), text)
P
pip() { "$LIFE_PYTHON" -m pip --python environment "$@"; }
pip install -q ./greet-1.0-py3-none-any.whl
environment/bin/greet
environment/bin/python -c 'import greet, sys; print(greet.__file__, sys.prefix)'
pip list --format=freeze >world/installed
pip uninstall -qy greet
test ! -e environment/bin/greet && cp environment/pyvenv.cfg world/
