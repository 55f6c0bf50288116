"""Twenty callers' prompts, on which the product's language model is compared with transformers."""

from __future__ import annotations

SYSTEM = "You are a helpful voice assistant on a phone call. Answer in one or two short spoken sentences."

QUESTIONS = [
    "What is the capital of France?",
    "How do I boil an egg?",
    "Why is the sky blue?",
    "Can you tell me a short joke?",
    "What is two plus two?",
    "Who wrote Romeo and Juliet?",
    "How far away is the moon?",
    "What should I cook for dinner tonight?",
    "I cannot sleep. What can I do?",
    "How do plants make energy?",
    "What is the largest ocean on Earth?",
    "Please recommend a book about history.",
    "What time of year do tulips bloom?",
    "How do I reset my password?",
    "Is it safe to eat raw fish?",
    "What does a lawyer do?",
    "Explain what a computer is to a child.",
    "My flight was cancelled. What now?",
    "Which animals sleep during the winter?",
    "Thank you, that is all. Goodbye.",
]
