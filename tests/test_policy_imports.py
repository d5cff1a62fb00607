"""Planning imports the modules that stages are built from, and of the heavy libraries torch alone."""

import subprocess
import sys

MODULES = ("alignlab.policy", "alignlab.data.chat", "alignlab.data.tokenizer")
LATE = ("transformers", "tokenizers", "safetensors", "jinja2")


def test_transformers_is_imported_where_a_model_is_loaded() -> None:
    program = f"import sys, {', '.join(MODULES)}; print(*[m for m in {LATE!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300)
    assert found.stdout.split() == []
