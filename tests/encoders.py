"""Tiny encoders of real architectures in local folders, as a hub would give them: random weights, and the family's own
fast tokenizer, its vocabulary trained on the spot, with the ids, special tokens and padding side that the family has."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AlbertTokenizer,
    AutoModel,
    BertConfig,
    BertTokenizer,
    ModernBertConfig,
    MPNetConfig,
    MPNetTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaTokenizer,
    XLNetConfig,
    XLNetTokenizer,
)

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VOCABULARY = 800
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # the order gives the ids
ROBERTA_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


def _bert() -> tuple:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertConfig(**SIZES, max_position_embeddings=512), BertTokenizer, trainers.WordPieceTrainer, specials


def _roberta(layers: int = 2) -> tuple:
    sizes = SIZES | {"num_hidden_layers": layers}
    config = RobertaConfig(**sizes, **ROBERTA_IDS, max_position_embeddings=514, type_vocab_size=1)
    return config, RobertaTokenizer, trainers.BpeTrainer, ROBERTA


def _albert() -> tuple:
    config = AlbertConfig(**SIZES, embedding_size=16, max_position_embeddings=512)  # factorised, and its layers share weights
    return config, AlbertTokenizer, trainers.UnigramTrainer, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]


def _xlnet() -> tuple:
    config = XLNetConfig(d_model=32, n_layer=2, n_head=4, d_inner=64)
    specials = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
    return config, XLNetTokenizer, trainers.UnigramTrainer, specials


def _mpnet() -> tuple:
    config = MPNetConfig(**SIZES, **ROBERTA_IDS, max_position_embeddings=514)
    return config, MPNetTokenizer, trainers.WordPieceTrainer, ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]


def _modernbert() -> tuple:
    config = ModernBertConfig(**SIZES, max_position_embeddings=8192, local_attention=8, global_attn_every_n_layers=2)
    return config, None, None, []


FAMILIES = {
    "bert": _bert, "distilroberta": lambda: _roberta(layers=1), "roberta": _roberta, "albert": _albert, "xlnet": _xlnet,
    "mpnet": _mpnet, "modernbert": _modernbert,
}


def make_encoder(family: str, folder: Path, texts: list[str], model_max_length: int | None = 512) -> Path:
    """Save a tiny encoder of the family, with its tokenizer, to `folder`; the same weights every time."""
    config, tokenizer_class, trainer, specials = FAMILIES[family]()
    tokenizer = _trained(tokenizer_class, trainer, specials, texts) if tokenizer_class else _modernbert_tokenizer(texts)
    if model_max_length:
        tokenizer.model_max_length = model_max_length
    config.vocab_size, config.initializer_range = len(tokenizer), 0.2  # large enough for attention to make a difference
    if family == "modernbert":
        config.pad_token_id, config.cls_token_id, config.sep_token_id = (
            tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _trained(tokenizer_class, trainer, specials: list[str], texts: list[str]) -> PreTrainedTokenizerBase:
    """The family's own tokenizer class on a vocabulary of ours, learned after its own normaliser and word splitter."""
    backend = tokenizer_class().backend_tokenizer
    options = {"vocab_size": VOCABULARY, "special_tokens": specials, "show_progress": False}
    if trainer is trainers.UnigramTrainer:
        options["unk_token"] = "<unk>"
    backend.train_from_iterator(texts, trainer(**options))
    learned = json.loads(backend.to_str())["model"]
    if trainer is trainers.BpeTrainer:
        return tokenizer_class(vocab=learned["vocab"], merges=[tuple(merge) for merge in learned["merges"]])
    vocabulary = learned["vocab"]
    return tokenizer_class(vocab=[tuple(piece) for piece in vocabulary] if isinstance(vocabulary, list) else vocabulary)


def _modernbert_tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
    """Byte-level BPE with BERT's special tokens at the end of the vocabulary, of no class of its own."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    backend.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
                                   pad_token="[PAD]", mask_token="[MASK]", model_input_names=["input_ids", "attention_mask"])
