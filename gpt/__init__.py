"""A small GPT that trains, resumes and generates through ckptstore, its first consumer.

gpt/
├── config.py         what a model is made of; unknown fields are kept
├── layers.py         attention over all heads in one call, feed-forward, block, key/value cache
├── model.py          the model: forward, generate, save, load
├── vocabulary.py     a tokenizer, made when it is needed
├── matching.py       which vocabulary a model is trained with: a new one, or the one it has
├── optimizer.py      AdamW, and whether a state belongs to it
├── sampling.py       from logits to the next token
├── weights.py        what a state dict says about the model that it belongs to
├── bundle.py         between a model and its checkpoints, in both directions
├── others.py         what belongs to other writers, carried from load to save
├── data.py           text to batches, in an order that is part of the checkpoint
├── fit.py            the training loop, exact across a kill
├── checkpoint.py     CheckpointManager: resume, start from another model, or start fresh
├── ranks.py          the processes of a run by torchrun: who writes, what they agree on
├── launcher.py, exchange.py, parallel.py, agreed.py, ranked.py    its parts: its place,
│                     what goes to and fro, gradients, the same checkpoint for all, lines said once
├── commands.py       errors, warnings and exit codes of the command line
├── train.py, generate.py, inspect_model.py     the commands
└── inferno.txt       sample text: passages of Dante's Inferno (public domain)
"""
