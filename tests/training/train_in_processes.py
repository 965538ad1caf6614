"""Three steps of a recipe in float32 and in float64, by however many processes torchrun starts; see test_processes."""

import json
import sys
from dataclasses import replace

import torch

from longclip_diffusers.training.distributed import rank
from longclip_diffusers.training.finetune import Evaluation, Run, claim_folder
from longclip_diffusers.training.processes import join_processes
from longclip_diffusers.training.recipe import Recipe
from longclip_diffusers.training.subject import Subject


def in_double(subject):
    subject.module.double()
    for anchor in subject.anchors:
        anchor.teacher.double()
    kept = tuple((table, rows.double()) for table, rows in subject.kept)
    return Subject(subject.module, subject.tokenizers, subject.anchors, kept)


recipe = Recipe(**json.loads(sys.argv[1]))
process = join_processes("cpu")
for dtype in (torch.float32, torch.float64):
    run = Run.open(replace(recipe, output=f"{recipe.output}/{dtype}"), torch.device(process.device))
    if dtype == torch.float64:
        run.subject = in_double(run.subject)
    before = {name: parameter.detach().clone() for name, parameter in run.subject.module.named_parameters()}
    claim_folder(run.folder, run.recipe)
    told = [event.measured for event in run.steps() if not isinstance(event, Evaluation)]
    update = {name: value.detach() - before[name] for name, value in run.subject.module.named_parameters()}
    torch.save({"told": told, "update": update}, f"{recipe.output}/{dtype}-{rank()}.pt")
