"""A bare PyTorch loop for the fine-tuning tasks: what a trainer can at best reach without computing anything otherwise.

    python side_bare.py sft --work FOLDER --seconds 20

The model's own loss on padded rows, clipping, fused AdamW.
"""

import json

import torch
from transformers import AutoModelForCausalLM
from work import PAD, TASKS, Clock, Rows, arguments


def main() -> None:
    given = arguments(name for name, task in TASKS.items() if task.kind == "sft")
    torch.set_num_threads(given.threads)
    task, rows, clock = TASKS[given.task], Rows.read(given.work / f"{given.task}.json"), Clock(given.seconds)
    model = AutoModelForCausalLM.from_pretrained(given.work / "policy", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    number = 0
    while not clock.tick():
        part = [(number + i) % len(rows.prompts) for i in range(task.batch)]
        number += task.batch
        texts = [[*rows.prompts[i], *rows.answers[i][0]] for i in part]
        longest = max(map(len, texts))
        tokens = torch.tensor([text + [PAD] * (longest - len(text)) for text in texts])
        labels = torch.full_like(tokens, -100)
        for row, (i, text) in enumerate(zip(part, texts, strict=True)):
            labels[row, len(rows.prompts[i]) : len(text)] = tokens[row, len(rows.prompts[i]) : len(text)]
        mask = None if all(len(text) == longest for text in texts) else (labels != -100) | (tokens != PAD)
        loss = model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
    print(json.dumps(clock.result(task.batch * rows.tokens)))


if __name__ == "__main__":
    main()
