"""Writes the published checkpoint formats: a diffusers folder, AnimateDiff's motion module, SparseCtrl's encoders."""

import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

import config


def half(tensors):
    return {k: v.half().contiguous() for k, v in tensors.items()}


def strengthened(tensors, factor):
    """Multiplies an encoder's residuals: as trained, an image has its say alone but loses against motion's guidance."""
    last = ("controlnet_down_blocks.", "controlnet_mid_block.")
    return {k: v * factor if k.startswith(last) else v for k, v in tensors.items()}


def unet_config():
    c = config.UNET
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": c.heads,
        "block_out_channels": list(c.channels),
        "center_input_sample": False,
        "cross_attention_dim": c.text_width,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": c.layers,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": c.groups,
        "out_channels": 4,
        "sample_size": config.LATENT,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }


def vae_config():
    c = config.VAE
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(c.channels),
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": c.layers,
        "norm_num_groups": c.groups,
        "out_channels": 3,
        "sample_size": config.SIZE,
        "scaling_factor": config.LATENT_SCALE,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }


def text_config(tokenizer):
    c = config.TEXT
    return {
        "architectures": ["CLIPTextModel"],
        "bos_token_id": len(tokenizer) - 2,
        "eos_token_id": len(tokenizer) - 1,
        "pad_token_id": len(tokenizer) - 1,
        "hidden_act": "quick_gelu",
        "hidden_size": c.width,
        "intermediate_size": c.inner,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": c.tokens,
        "model_type": "clip_text_model",
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "vocab_size": len(tokenizer),
    }


def motion_settings(attentions):
    return {
        "use_motion_module": True,
        "motion_module_resolutions": [1, 2, 4, 8],
        "motion_module_mid_block": False,
        "motion_module_type": "Vanilla",
        "motion_module_kwargs": {
            "num_attention_heads": config.UNET.heads,
            "num_transformer_block": 1,
            "attention_block_types": ["Temporal_Self"] * attentions,
            "temporal_position_encoding": True,
            "temporal_position_encoding_max_len": config.MAX_FRAMES,
            "temporal_attention_dim_div": 1,
        },
    }


def model_config():
    return {
        "unet_additional_kwargs": {"use_inflated_groupnorm": True, **motion_settings(2)},
        "noise_scheduler_kwargs": {
            "beta_start": config.BETA_START,
            "beta_end": config.BETA_END,
            "beta_schedule": "linear",
            "steps_offset": 1,
            "clip_sample": False,
        },
    }


def control_config(kind):
    return {
        "set_noisy_sample_input_to_zero": True,
        **motion_settings(1),
        "use_simplified_condition_embedding": kind == "rgb",
        "conditioning_channels": 4 if kind == "rgb" else 3,
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def export(weights, out, tokenizer):
    """From the trained weights in the folder `weights` to checkpoints in the folder `out`."""
    weights, out = pathlib.Path(weights), pathlib.Path(out)
    base = out / "StableDiffusion"
    parts = {
        "unet": ("unet", "diffusion_pytorch_model.safetensors", unet_config()),
        "vae": ("vae", "diffusion_pytorch_model.safetensors", vae_config()),
        "text": ("text_encoder", "model.safetensors", text_config(tokenizer)),
    }
    for name, (folder, file, settings) in parts.items():
        (base / folder).mkdir(parents=True, exist_ok=True)
        tensors = half(load_file(weights / f"{name}.safetensors"))
        if name == "unet":
            motion = {k: v for k, v in tensors.items() if "motion_modules." in k}
            tensors = {k: v for k, v in tensors.items() if k not in motion}
            torch.save({"state_dict": motion}, out / "v3_sd15_mm.ckpt")
        save_file(tensors, base / folder / file, metadata={"format": "pt"})
        write_json(base / folder / "config.json", settings)
    tokenizer.save(base / "tokenizer")
    for kind in ("rgb", "scribble"):
        tensors = load_file(weights / f"{kind}.safetensors")
        tensors = strengthened(tensors, config.STRENGTH[kind])
        torch.save({"controlnet": half(tensors)}, out / f"v3_sd15_sparsectrl_{kind}.ckpt")
    write_json(out / "model_config.json", model_config())
    write_json(out / "sparsectrl_configs.json", {kind: control_config(kind) for kind in ("rgb", "scribble")})
