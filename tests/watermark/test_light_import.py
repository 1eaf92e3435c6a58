"""Detection of weights and statistics must not drag torch in."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_but_numpy_is_loaded() -> None:
    code = (
        "import sys, zhiyi_watermark, zhiyi_watermark.weights, zhiyi_watermark.stats, zhiyi_watermark.payload\n"
        "import zhiyi_watermark.image_finished, zhiyi_watermark.image_generated, zhiyi_watermark.image_weights\n"
        "import zhiyi_watermark.text_multibit, zhiyi_watermark.text_zerobit\n"
        "print([m for m in ('torch', 'transformers', 'safetensors', 'PIL', 'scipy', 'web3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
