"""Makes analysis/report/vega.js, the charts' library of the page: `python tests/vega.py`.

It is made ahead because the program that bundles it starts V8, which ends the process where memory
is limited (ulimit -v), as batch systems do.
"""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).parents[1] / "analysis" / "report" / "vega.js"
LICENSE = """\
Copyright (c) 2015-2023, University of Washington Interactive Data Lab and contributors. All
rights reserved. BSD 3-Clause License:

Redistribution and use in source and binary forms, with or without modification, are permitted
provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions
   and the following disclaimer.
2. Redistributions in binary form must reproduce the above copyright notice, this list of
   conditions and the following disclaimer in the documentation and/or other materials provided
   with the distribution.
3. Neither the name of the copyright holder nor the names of its contributors may be used to
   endorse or promote products derived from this software without specific prior written
   permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR
IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND
FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR
CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE,
DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER
IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT
OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE."""


def versions() -> str:
    """What the installed vl-convert bundles."""
    import vl_convert

    lite, _, _ = vl_convert.get_vegalite_versions()[-1].partition(" ")
    return (
        f"Vega {vl_convert.get_vega_version()}, Vega-Lite {lite}, "
        f"Vega-Embed {vl_convert.get_vega_embed_version()}, by vl-convert {vl_convert.__version__}"
    )


def made() -> str:
    """The file's content."""
    import vl_convert

    return f"/* {versions()}\n\n{LICENSE} */\n{vl_convert.javascript_bundle()}"


if __name__ == "__main__":
    PATH.write_text(made(), encoding="utf-8")
