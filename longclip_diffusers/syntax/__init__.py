"""How prompts may be written: plain (default), a1111, a1111-mean or compel. Pure, without torch."""

from .prompt import SYNTAXES, Prompt, Reading, parse_prompt, plan_prompt

__all__ = ["SYNTAXES", "Prompt", "Reading", "parse_prompt", "plan_prompt"]
