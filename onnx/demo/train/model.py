"""The networks in plain PyTorch: Stable Diffusion 1.5's UNet with AnimateDiff's motion modules, SparseCtrl, the
autoencoder and CLIP's text encoder, at a small size.

Parameter names are those of the published checkpoints (diffusers, AnimateDiff v3, SparseCtrl), so a state dict is a
checkpoint already. Frames of a clip travel folded into the batch: `[clips * frames, channels, height, width]`.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import config

TEMPORAL_GROUPS = 32  # of every temporal transformer's group norm, whatever the UNet's


def attend(q, k, v):
    """Scaled dot products, `[batch, heads, length, head width]`."""
    width = q.shape[-1]
    if width % 8 and q.is_cuda:  # the fused kernels want a multiple of eight
        q, k, v = (F.pad(x, (0, -width % 8)) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=width**-0.5)[..., :width]


class Attention(nn.Module):
    """Multi-head attention without biases on query, key and value."""

    def __init__(self, width, context_width, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Identity()])

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x, context=None):
        context = x if context is None else context
        q, k, v = self.split(self.to_q(x)), self.split(self.to_k(context)), self.split(self.to_v(context))
        return self.to_out[0](attend(q, k, v).transpose(1, 2).flatten(2))


class GatedLinear(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU feed-forward of four times the width."""

    def __init__(self, width):
        super().__init__()
        self.net = nn.ModuleList([GatedLinear(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class SpatialBlock(nn.Module):
    def __init__(self, width, context_width, heads):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, width, heads)
        self.attn2 = Attention(width, context_width, heads)
        self.ff = FeedForward(width)

    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Self-attention over a frame's positions, cross-attention to the text, feed-forward."""

    def __init__(self, width, context_width, heads, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(width, context_width, heads)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x, context):
        h, w = x.shape[2:]
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        y = self.transformer_blocks[0](y, context)
        return x + self.proj_out(y.transpose(1, 2).unflatten(2, (h, w)))


def position_table(frames, width):
    """Sinusoids over the frame number, [frames, width]; sines on even channels, cosines on odd ones."""
    angle = torch.arange(frames)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class TemporalAttention(Attention):
    """Self-attention over the frames of one position, `[positions, frames, width]`.

    With `record`, gives the attention probabilities `[positions, heads, frames, frames]` as well.
    """

    def __init__(self, width, heads):
        super().__init__(width, width, heads)
        self.register_buffer("positions", position_table(config.MAX_FRAMES, width), persistent=False)

    def forward(self, x, record=False):
        x = x + self.positions[: x.shape[1]].to(x.dtype)
        q, k, v = self.split(self.to_q(x)), self.split(self.to_k(x)), self.split(self.to_v(x))
        if not record:
            return self.to_out[0](temporal_attend(q, k, v).transpose(1, 2).flatten(2))
        out, probabilities = temporal_maps(q, k, v)
        return self.to_out[0](out.transpose(1, 2).flatten(2)), probabilities


def attend_openly(q, k, v):
    """`attend`, and its probabilities."""
    probabilities = (q.float() @ k.float().transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return probabilities.to(v.dtype) @ v, probabilities


temporal_attend, temporal_maps = attend, attend_openly  # training puts these two, compiled, here:


def temporal_sums(q, k, v):
    """`attend` as sums of products. Compiled, it beats attention kernels whose tiles sixteen frames leave empty."""
    return open_sums(q, k, v)[0]


def open_sums(q, k, v):
    """`attend_openly` as sums of products."""
    scores = (q.unsqueeze(-2).float() * k.unsqueeze(-3).float()).sum(-1) * q.shape[-1] ** -0.5
    probabilities = scores.softmax(-1)
    return (probabilities.unsqueeze(-1) * v.unsqueeze(-3).float()).sum(-2).to(v.dtype), probabilities


class TemporalBlock(nn.Module):
    def __init__(self, width, heads, attentions):
        super().__init__()
        self.attention_blocks = nn.ModuleList(TemporalAttention(width, heads) for _ in range(attentions))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(attentions))
        self.ff = FeedForward(width)
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x, record=False):
        maps = []
        for norm, attention in zip(self.norms, self.attention_blocks):
            made = attention(norm(x), record)
            if record:
                made, seen = made
                maps.append(seen)
            x = x + made
        return x + self.ff(self.ff_norm(x)), maps


class TemporalTransformer(nn.Module):
    def __init__(self, width, heads, attentions):
        super().__init__()
        self.norm = nn.GroupNorm(TEMPORAL_GROUPS, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(width, heads, attentions)])
        self.proj_out = nn.Linear(width, width)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x, frames, record=False):
        """The result and, with `record`, the attention maps."""
        h, w = x.shape[2:]
        y = self.norm(x).unflatten(0, (-1, frames)).permute(0, 3, 4, 1, 2).flatten(0, 2)  # [positions, frames, width]
        y, maps = self.transformer_blocks[0](self.proj_in(y), record)
        return x + self.proj_out(y).unflatten(0, (-1, h, w)).permute(0, 3, 4, 1, 2).flatten(0, 1), maps


class MotionModule(nn.Module):
    """The temporal transformer of AnimateDiff; an identity until trained."""

    def __init__(self, width, heads, attentions):
        super().__init__()
        self.temporal_transformer = TemporalTransformer(width, heads, attentions)

    def forward(self, x, frames, record=False):
        return self.temporal_transformer(x, frames, record)


class ResnetBlock(nn.Module):
    def __init__(self, width_in, width_out, time_width, groups, eps):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in, eps=eps)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        if time_width:
            self.time_emb_proj = nn.Linear(time_width, width_out)
        self.norm2 = nn.GroupNorm(groups, width_out, eps=eps)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        if width_in != width_out:
            self.conv_shortcut = nn.Conv2d(width_in, width_out, 1)

    def forward(self, x, time=None):
        y = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            y = y + self.time_emb_proj(F.silu(time))[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Convolution(nn.Module):
    """A down- or upsampler: one convolution under the name `conv`."""

    def __init__(self, width, stride, padding=1):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=stride, padding=padding)

    def forward(self, x):
        return self.conv(x)


class TimeEmbedding(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, 4 * width)
        self.linear_2 = nn.Linear(4 * width, 4 * width)

    def forward(self, timesteps):
        half = self.width // 2
        angle = timesteps.float()[:, None] * torch.exp(
            torch.arange(half, device=timesteps.device) * (-math.log(10000.0) / half)
        )
        table = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(table)))


class Level(nn.Module):
    """A down or up block: residual blocks, each followed by a spatial transformer and a motion module."""

    def __init__(self, widths, attention, temporal_attentions, sampler, c):
        super().__init__()
        time = 4 * c.channels[0]
        out = widths[0][1]
        self.resnets = nn.ModuleList(ResnetBlock(a, b, time, c.groups, 1e-5) for a, b in widths)
        if attention:
            self.attentions = nn.ModuleList(SpatialTransformer(out, c.text_width, c.heads, c.groups) for _ in widths)
        self.motion_modules = nn.ModuleList(MotionModule(out, c.heads, temporal_attentions) for _ in widths)
        if sampler == "down":
            self.downsamplers = nn.ModuleList([Convolution(out, 2)])
        elif sampler == "up":
            self.upsamplers = nn.ModuleList([Convolution(out, 1)])

    def layer(self, i, x, time, context, frames, maps=None):
        """One residual block and what follows it; appends the temporal attention to the list `maps`, if given."""
        x = self.resnets[i](x, time)
        if hasattr(self, "attentions"):
            x = self.attentions[i](x, context)
        if not frames:
            return x
        x, seen = self.motion_modules[i](x, frames, maps is not None)
        if maps is not None:
            maps.extend(seen)
        return x


class MidBlock(nn.Module):
    def __init__(self, width, c):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, 4 * c.channels[0], c.groups, 1e-5) for _ in range(2))
        self.attentions = nn.ModuleList([SpatialTransformer(width, c.text_width, c.heads, c.groups)])

    def forward(self, x, time, context):
        return self.resnets[1](self.attentions[0](self.resnets[0](x, time), context), time)


def down_levels(c, temporal_attentions):
    levels, before = [], c.channels[0]
    for i, width in enumerate(c.channels):
        last = i == len(c.channels) - 1
        widths = [(before, width)] + [(width, width)] * (c.layers - 1)
        levels.append(Level(widths, not last, temporal_attentions, None if last else "down", c))
        before = width
    return nn.ModuleList(levels)


def run_down(levels, x, time, context, frames):
    """The skip tensors of the encoder half, finest first; the last is also its output."""
    skips = [x]
    for level in levels:
        for i in range(len(level.resnets)):
            x = level.layer(i, x, time, context, frames)
            skips.append(x)
        if hasattr(level, "downsamplers"):
            x = level.downsamplers[0](x)
            skips.append(x)
    return skips


class Unet(nn.Module):
    """Predicts the noise in latents `[clips * frames, 4, height, width]`.

    `timesteps` and `context` have one row per frame. `frames = 0` leaves the motion modules out. The temporal attention
    of the up blocks `record` is appended to the list `maps`, `[clips * positions, heads, frames, frames]` each.
    """

    def __init__(self, c=config.UNET):
        super().__init__()
        self.conv_in = nn.Conv2d(4, c.channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(c.channels[0])
        self.down_blocks = down_levels(c, 2)
        self.mid_block = MidBlock(c.channels[-1], c)
        reverse = list(reversed(c.channels))
        ups = []
        for i, width in enumerate(reverse):
            before = reverse[max(i - 1, 0)]
            skip = reverse[min(i + 1, len(reverse) - 1)]
            widths = [
                ((before if j == 0 else width) + (skip if j == c.layers else width), width)
                for j in range(c.layers + 1)
            ]
            ups.append(Level(widths, i > 0, 2, "up" if i < len(reverse) - 1 else None, c))
        self.up_blocks = nn.ModuleList(ups)
        self.conv_norm_out = nn.GroupNorm(c.groups, c.channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(c.channels[0], 4, 3, padding=1)

    def forward(self, x, timesteps, context, frames=0, control=None, stop_after=None, record=(), maps=None):
        time = self.time_embedding(timesteps)
        skips = run_down(self.down_blocks, self.conv_in(x), time, context, frames)
        x = self.mid_block(skips[-1], time, context)
        if control is not None:
            skips = [s + r for s, r in zip(skips, control[:-1])]
            x = x + control[-1]
        for index, level in enumerate(self.up_blocks):
            for i in range(len(level.resnets)):
                x = torch.cat([x, skips.pop()], dim=1)
                x = level.layer(i, x, time, context, frames, maps if index in record else None)
            if index == stop_after:
                return None
            if hasattr(level, "upsamplers"):
                x = level.upsamplers[0](F.interpolate(x, size=skips[-1].shape[2:], mode="nearest"))
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class ConditionEmbedding(nn.Module):
    """A picture of the full size to the UNet's first width at an eighth of it."""

    def __init__(self, channels_in, stack, out):
        super().__init__()
        self.conv_in = nn.Conv2d(channels_in, stack[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for a, b in zip(stack, stack[1:]):
            self.blocks.append(nn.Conv2d(a, a, 3, padding=1))
            self.blocks.append(nn.Conv2d(a, b, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(stack[-1], out, 3, padding=1)
        # PyTorch's own start shrinks a signal at every layer: after eight of them hardly anything of a sketch is left.
        for conv in [self.conv_in, *self.blocks, self.conv_out]:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, x):
        x = F.silu(self.conv_in(x))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


class SparseControl(nn.Module):
    """SparseCtrl: the UNet's encoder half over a sparse condition, to residuals for the skips and the middle.

    `condition` is `[clips * frames, channels + 1, …]`, the last channel the mask; frames without one are zero.
    """

    def __init__(self, kind, c=config.UNET):
        super().__init__()
        width = c.channels[0]
        if kind == "rgb":
            self.controlnet_cond_embedding = nn.Conv2d(4 + 1, width, 3, padding=1)
        else:
            self.controlnet_cond_embedding = ConditionEmbedding(3 + 1, config.SCRIBBLE_STACK, width)
        self.conv_in = nn.Conv2d(4, width, 3, padding=1)
        self.conv_in.weight.requires_grad_(False)  # the noisy input is zero, so only the bias matters
        self.time_embedding = TimeEmbedding(width)
        self.down_blocks = down_levels(c, 1)
        self.mid_block = MidBlock(c.channels[-1], c)
        skips = [width]
        for i, w in enumerate(c.channels):
            skips += [w] * (c.layers + (i < len(c.channels) - 1))
        self.controlnet_down_blocks = nn.ModuleList(nn.Conv2d(w, w, 1) for w in skips)
        self.controlnet_mid_block = nn.Conv2d(c.channels[-1], c.channels[-1], 1)
        for conv in [*self.controlnet_down_blocks, self.controlnet_mid_block]:
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)

    def start_from(self, other):
        """Takes over every tensor of a UNet or of another encoder that fits."""
        ours = self.state_dict()
        ours.update({k: v for k, v in other.state_dict().items() if k in ours and v.shape == ours[k].shape})
        self.load_state_dict(ours)

    def forward(self, condition, timesteps, context, frames):
        time = self.time_embedding(timesteps)
        x = self.controlnet_cond_embedding(condition) + self.conv_in.bias[:, None, None]
        skips = run_down(self.down_blocks, x, time, context, frames)
        middle = self.mid_block(skips[-1], time, context)
        return [conv(s) for conv, s in zip(self.controlnet_down_blocks, skips)] + [self.controlnet_mid_block(middle)]


class VaeAttention(nn.Module):
    def __init__(self, width, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Identity()])

    def forward(self, x):
        h, w = x.shape[2:]
        y = self.group_norm(x).flatten(2).transpose(1, 2).unsqueeze(1)
        y = F.scaled_dot_product_attention(self.to_q(y), self.to_k(y), self.to_v(y)).squeeze(1)
        return x + self.to_out[0](y).transpose(1, 2).unflatten(2, (h, w))


class VaeMid(nn.Module):
    def __init__(self, width, groups):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, 0, groups, 1e-6) for _ in range(2))
        self.attentions = nn.ModuleList([VaeAttention(width, groups)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class VaeLevel(nn.Module):
    def __init__(self, width_in, width, count, sampler, groups):
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(width_in if i == 0 else width, width, 0, groups, 1e-6) for i in range(count)
        )
        if sampler == "down":
            self.downsamplers = nn.ModuleList([Convolution(width, 2, 0)])
        elif sampler == "up":
            self.upsamplers = nn.ModuleList([Convolution(width, 1)])

    def forward(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](F.pad(x, (0, 1, 0, 1)))
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class VaeEncoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv_in = nn.Conv2d(3, c.channels[0], 3, padding=1)
        ins = [c.channels[0], *c.channels[:-1]]
        last = len(ins) - 1
        self.down_blocks = nn.ModuleList(
            VaeLevel(a, b, c.layers, "down" if i < last else None, c.groups)
            for i, (a, b) in enumerate(zip(ins, c.channels))
        )
        self.mid_block = VaeMid(c.channels[-1], c.groups)
        self.conv_norm_out = nn.GroupNorm(c.groups, c.channels[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(c.channels[-1], 8, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class VaeDecoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths = list(reversed(c.channels))
        self.conv_in = nn.Conv2d(4, widths[0], 3, padding=1)
        self.mid_block = VaeMid(widths[0], c.groups)
        last = len(widths) - 1
        self.up_blocks = nn.ModuleList(
            VaeLevel(widths[max(i - 1, 0)], w, c.layers + 1, "up" if i < last else None, c.groups)
            for i, w in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(c.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x):
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Vae(nn.Module):
    """The autoencoder: pictures in -1..1 to means and log variances of latents, and back."""

    def __init__(self, c=config.VAE):
        super().__init__()
        self.encoder = VaeEncoder(c)
        self.decoder = VaeDecoder(c)
        self.quant_conv = nn.Conv2d(8, 8, 1)
        self.post_quant_conv = nn.Conv2d(4, 4, 1)

    def encode(self, x):
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))


class TextAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class TextMlp(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class TextLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.self_attn = TextAttention(c.width, c.heads)
        self.mlp = TextMlp(c.width, c.inner)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class TextEmbeddings(nn.Module):
    def __init__(self, c, vocabulary):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, c.width)
        self.position_embedding = nn.Embedding(c.tokens, c.width)
        nn.init.normal_(self.token_embedding.weight, std=0.1)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, ids):
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class TextStack(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layers = nn.ModuleList(TextLayer(c) for _ in range(c.layers))


class TextModel(nn.Module):
    def __init__(self, c, vocabulary):
        super().__init__()
        self.embeddings = TextEmbeddings(c, vocabulary)
        self.encoder = TextStack(c)
        self.final_layer_norm = nn.LayerNorm(c.width)


class TextEncoder(nn.Module):
    """CLIP's text encoder: token ids `[prompts, tokens]` to the last hidden state."""

    def __init__(self, vocabulary, c=config.TEXT):
        super().__init__()
        self.text_model = TextModel(c, vocabulary)

    def forward(self, ids):
        x = self.text_model.embeddings(ids)
        for layer in self.text_model.encoder.layers:
            x = layer(x)
        return self.text_model.final_layer_norm(x)
