"""Every kernel against PyTorch's automatic gradients. Without a GPU: `TRITON_INTERPRET=1 python test_kernels.py`."""

import os
import unittest

import torch
import torch.nn.functional as F
import triton

import kernels as K
from variants import attention_variants, group_norm_variants, layer_norm_variants, next_power

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"
SMALL = DEVICE == "cpu"


def drawn(*shape, scale=1.0):
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(*shape, generator=generator) * scale).half().to(DEVICE)


def attend(q, k, v, heads):
    def split(x):
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    return F.scaled_dot_product_attention(split(q), split(k), split(v)).transpose(1, 2).flatten(2)


def expected(function, inputs, dy):
    """The result and the gradients in float64."""
    inputs = [x.double().requires_grad_() for x in inputs]
    y = function(*inputs)
    y.backward(dy.double())
    return y.detach(), [x.grad for x in inputs]


class Kernels(unittest.TestCase):
    def near(self, got, wanted, bound=4e-3):
        error = ((got.double() - wanted).norm() / wanted.norm()).item()
        self.assertLess(error, bound)

    def test_attention_over_frames(self):
        for sequences, n, heads, width in [(3, 16, 2, 40), (2, 24, 2, 80), (2, 5, 1, 160)]:
            q, k, v, dy = (drawn(sequences, n, heads * width) + i * 0.1 for i in range(4))
            y, dq, dk, dv = (torch.empty_like(q) for _ in range(4))
            facts = dict(rows=16 if n <= 16 else 32, width=width, padded=next_power(width), num_warps=1)
            K.temporal_attention[(sequences * heads,)](q, k, v, y, n, heads, width**-0.5, **facts)
            K.temporal_attention_gradient[(sequences * heads,)](q, k, v, dy, dq, dk, dv, n, heads, width**-0.5, **facts)
            result, gradients = expected(lambda *x: attend(*x, heads), (q, k, v), dy)
            for got, wanted in zip((y, dq, dk, dv), (result, *gradients)):
                self.near(got, wanted)

    def test_attention_over_positions(self):
        cases = [(2, 200, 200, 2, 40), (1, 130, 77, 2, 80), (1, 300, 77, 1, 40)]
        for images, m, n, heads, width in cases if SMALL else [*cases, (2, 4096, 4096, 8, 40), (2, 1024, 1024, 8, 80)]:
            q, dy = drawn(images, m, heads * width), drawn(images, m, heads * width) * 0.5
            k, v = drawn(images, n, heads * width) * 1.1, drawn(images, n, heads * width)
            result, gradients = expected(lambda *x: attend(*x, heads), (q, k, v), dy)
            y = result.half()
            lse, delta = (torch.empty(images * heads, m, device=DEVICE) for _ in range(2))
            dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
            scale = width**-0.5
            facts = {name: (shared, options) for name, shared, options in attention_variants(width)}

            def run(name, count, *arguments):
                shared, options = facts[name]
                grid = (triton.cdiv(count, shared["block"]), images * heads)
                getattr(K, name)[grid](*arguments, m, n, heads, scale, **shared, **options)

            run("attention_statistics", m, q, k, y, dy, lse, delta)
            run("attention_query_gradient", m, q, k, v, dy, lse, delta, dq)
            run("attention_key_gradient", n, q, k, v, dy, lse, delta, dk, dv)
            for got, wanted in zip((dq, dk, dv), gradients):
                self.near(got, wanted)

    def test_layer_norm(self):
        from variants import layer_norm_variant

        for rows, channels in [(37, 320), (20, 640), (9, 1280)]:
            x, dy, gamma = drawn(rows, channels) + 0.5, drawn(rows, channels), drawn(channels) * 0.2 + 1
            dx = torch.empty_like(x)
            shared, options = layer_norm_variant(channels)
            grid = (triton.cdiv(rows, shared["block"]),)
            K.layer_norm_gradient[grid](x, gamma, dy, dx, rows, 1e-5, **shared, **options)
            _, (wanted,) = expected(lambda x: F.layer_norm(x, (channels,), gamma.double(), None, 1e-5), (x,), dy)
            self.near(dx, wanted)

    def test_sums_and_norms_of_rows(self):
        n, positions = 3, 4
        for channels in (320, 640, 1280):
            x, skip = drawn(2 * positions, n, channels) * 2 + 0.5, drawn(2 * positions, n, channels) - 0.3
            bias, gamma, beta, places = drawn(channels), drawn(channels) * 0.2 + 1, drawn(channels), drawn(n, channels)
            rows = 2 * positions * n
            for name, shared, options in layer_norm_variants(channels):
                sums, y = torch.empty_like(x), torch.empty_like(x)
                if name == "residual_sum":
                    K.residual_sum[(rows,)](x, bias, skip, y, positions, n, **shared, **options)
                    turned = x.double().view(2, positions, n, channels).transpose(1, 2).reshape(x.shape)
                    self.near(y, turned + bias.double() + skip.double())
                    continue
                K.layer_norm[(rows,)](x, bias, skip, gamma, beta, places, sums, y, n, 1e-5, **shared, **options)
                total = x.double()
                if shared["sum"]:
                    total = total + bias.double() + (skip.double() if shared["skips"] else 0)
                    self.near(sums, total)
                wanted = F.layer_norm(total, (channels,), gamma.double(), beta.double(), 1e-5)
                self.near(y, wanted + places.double() if shared["placed"] else wanted)

    def test_group_norm(self):
        for images, positions, per, groups, silu in [
            (2, 70, 10, 32, True), (1, 300, 20, 32, False), (1, 40, 60, 32, True), (1, 20, 80, 32, True), (1, 9, 30, 8, False),
        ]:
            channels = groups * per
            x, dy = drawn(images, positions, channels) * 1.5 + 0.7, drawn(images, positions, channels)
            gamma, beta = drawn(channels).float() * 0.2 + 1, drawn(channels).float() * 0.3
            dx = torch.empty_like(x)
            facts = {name: (shared, options) for name, shared, options in group_norm_variants(per, silu)}
            block, bundle = (facts["group_norm_sums"][0][key] for key in ("block", "bundle"))
            chunks = triton.cdiv(positions, block)
            grid = (chunks, triton.cdiv(groups, bundle), images)
            partial, sums = (torch.full((images, chunks, groups, 2), float("nan"), device=DEVICE) for _ in range(2))

            def run(name, *arguments):
                shared, options = facts[name]
                getattr(K, name)[grid](*arguments, **shared, **options)

            run("group_norm_statistics", x, partial, positions, groups)
            run("group_norm_sums", x, partial, gamma, beta, dy, sums, positions, groups, 1e-5)
            run("group_norm_gradient", x, partial, sums, gamma, beta, dy, dx, positions, groups, 1e-5)

            def norm(x):
                y = F.group_norm(x.transpose(1, 2), groups, gamma.double(), beta.double(), 1e-5).transpose(1, 2)
                return F.silu(y) if silu else y

            _, (wanted,) = expected(norm, (x,), dy)
            self.near(dx, wanted)

    def test_convolution(self):
        from variants import neighbour_sum_variant

        shared, options = neighbour_sum_variant()
        for images, rows, columns, inner, out in [(2, 3, 5, 70, 40), (1, 1, 4, 1100, 8)]:
            weight, dy = drawn(out, 3, 3, inner), drawn(images, rows, columns, out)
            parts = dy.flatten(0, 2) @ weight.flatten(1)
            dx = torch.empty(images, rows, columns, inner, dtype=dy.dtype, device=DEVICE)
            grid = (images * rows * columns, triton.cdiv(inner, shared["block"]))
            K.neighbour_sum[grid](parts, dx, rows, columns, inner, **shared, **options)

            def convolution(x):
                y = F.conv2d(x.permute(0, 3, 1, 2), weight.double().permute(0, 3, 1, 2), padding=1)
                return y.permute(0, 2, 3, 1)

            _, (wanted,) = expected(convolution, (torch.zeros_like(dx),), dy)
            self.near(dx, wanted)

    def test_geglu(self):
        from variants import geglu_variant

        rows, width = 5, 1280
        x, bias, dy = drawn(rows, 2 * width) * 1.5, drawn(2 * width) * 0.5, drawn(rows, width)
        dx = torch.empty_like(x)
        shared, options = geglu_variant()
        grid = (rows, triton.cdiv(width, shared["block"]))
        K.geglu_gradient[grid](x, bias, dy, dx, rows, width, **shared, **options)

        def geglu(x):
            a, b = (x + bias.double()).chunk(2, 1)
            return a * F.gelu(b)

        _, (wanted,) = expected(geglu, (x,), dy)
        self.near(dx, wanted)


if __name__ == "__main__":
    unittest.main()
