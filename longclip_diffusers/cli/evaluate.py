"""`longclip evaluate`: the measures of a model, a module each."""

from .evaluate_ablation import ablation
from .evaluate_detail import detail
from .evaluate_retrieval import retrieval
from .evaluate_zeroshot import zeroshot

__all__ = ["verbs"]

verbs = {"detail": detail, "ablation": ablation, "retrieval": retrieval, "zeroshot": zeroshot}
