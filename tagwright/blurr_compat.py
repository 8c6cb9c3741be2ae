"""The one place that touches blurr: makes ohmeow-blurr 1.0.5, last released in 2022, run on today's fastai.

blurr asks for three names that are gone: fastcore's `typedispatch` (now plum's `dispatch`), `datasets.load_metric`
(only its never-used seq2seq metrics call it) and a torch below 2 (installed with `--no-deps`, so never asked). The names
are put in place before blurr's first import. Its `.all` modules are never imported: they try to download nltk data.
"""

import datasets
import fastcore.all
import plum
from transformers.utils import logging

fastcore.all.typedispatch = plum.dispatch


def _load_metric(*args, **kwargs):
    raise NotImplementedError("datasets.load_metric no longer exists; use tagwright.metrics")


datasets.load_metric = _load_metric
verbosity = logging.get_verbosity()

from blurr.text.data.core import BatchTokenizeTransform, TextBlock  # noqa: E402
from blurr.text.modeling.core import BaseModelCallback, BaseModelWrapper, blurr_splitter  # noqa: E402
from blurr.text.utils import get_hf_objects  # noqa: E402

logging.set_verbosity(verbosity)  # blurr silences transformers for the whole process

__all__ = ["BaseModelCallback", "BaseModelWrapper", "BatchTokenizeTransform", "TextBlock", "blurr_splitter", "get_hf_objects"]
