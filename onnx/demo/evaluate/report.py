"""The figures as Markdown and as a plot, and whether they reach what is asked of the embedded model."""

import numpy as np

import followed
import plot

# What a quick run must reach: a check that nothing broke, over too few clips to say more.
QUICK = {"direction": 0.75, "gain": 0.2, "prompt": 0.75, "loss": 0.26}
FULL = {"direction": 0.9, "gain": 0.25, "prompt": 0.85, "loss": 0.05}
FIRST_FRAME, OVERLAP, OWN_MOTION = 22.0, 0.6, 1 / 3
# Direction and amplitude over real footage, by kind of reference; unguided clones must not follow.
FOOTAGE = {"slow": 0.95, "fast": 0.95, "object": 0.85, "still": 1.0}
AMPLITUDE, CHANCE = 0.85, 0.15


def average(rows, side, key):
    return float(np.mean([row[side][key] for row in rows]))


def goals(measured, quick):
    """What is asked, what was reached, and whether that is enough."""
    rows, bounds = measured["clips"], QUICK if quick else FULL
    both = lambda key: (average(rows, "guided", key), average(rows, "unguided", key))
    direction, (fidelity, free), (prompt, free_prompt) = both("direction")[0], both("fidelity"), both("both")
    own = average(rows, "unguided", "speed") / measured["training_speed"]
    yield f"direction accuracy, guided ≥ {bounds['direction']}", f"{direction:.2f}", direction >= bounds["direction"]
    gain = fidelity - free
    yield f"motion fidelity, guided − unguided ≥ {bounds['gain']}", f"{gain:.2f}", gain >= bounds["gain"]
    yield f"shape and colour right, guided ≥ {bounds['prompt']}", f"{prompt:.2f}", prompt >= bounds["prompt"]
    loss = free_prompt - prompt
    yield f"shape and colour, unguided − guided ≤ {bounds['loss']}", f"{loss:.2f}", loss <= bounds["loss"] + 1e-9
    yield "unguided mean flow / training data's > 1/3", f"{own:.2f}", own > OWN_MOTION
    for key, what, unit, least in (
        ("pictures", "first frame against the given picture", " dB", FIRST_FRAME),
        ("sketches", "first frame's shape against the sketch, IoU", "", OVERLAP),
    ):
        if key in measured:
            values = [row["frame"] for row in measured[key]]
            reached = f"{np.mean(values):.2f}{unit} (worst {np.min(values):.2f})"
            yield f"{what}, mean ≥ {least:g}{unit}", reached, np.mean(values) >= least
            follow = average(measured[key], "guided", "direction")
            yield f"{key}: direction accuracy ≥ {bounds['direction']}", f"{follow:.2f}", follow >= bounds["direction"]
    if "footage" in measured:
        yield from footage_goals(measured["footage"])
    for what, holds in measured["zero"].items():
        yield what, "yes" if holds else "no", holds


def footage_goals(rows):
    """What is asked of clones of real footage."""
    moving = [row for row in rows if row["kind"] != "still"]
    for kind, least in FOOTAGE.items():
        rate = float(np.mean([row["guided"]["direction"] for row in rows if row["kind"] == kind]))
        yield f"real footage, {kind}: direction accuracy ≥ {least}", f"{rate:.2f}", rate >= least
    alike = float(np.mean([followed.right_amplitude(row["guided"]) for row in moving]))
    yield f"real footage: amplitude within a factor of {followed.ALIKE:g} ≥ {AMPLITUDE}", f"{alike:.2f}", alike >= AMPLITUDE
    chance = float(np.mean([row["unguided"]["direction"] for row in moving if "unguided" in row]))
    yield f"real footage, unguided: direction accuracy ≤ {CHANCE}", f"{chance:.2f}", chance <= CHANCE


def footage_table(rows):
    head = ["reference", "prompt", "direction", "rate against the reference's", "mean flow, px"]
    lines = []
    for row in rows:
        sides = [row[side] for side in ("guided", "unguided") if side in row]
        rates = "" if row["kind"] == "still" else " / ".join(f"{side['amplitude']:.2f}" for side in sides)
        cells = [" / ".join(yes(side["direction"]) for side in sides), rates, " / ".join(f"{side['speed']:.2f}" for side in sides)]
        lines.append([row["name"], row["prompt"], *cells])
    return table(head, lines)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def yes(value):
    return "yes" if value else "no"


def pair(row, key, form="{:.2f}"):
    """Guided and unguided of one measure."""
    return " / ".join(form.format(row[side][key]) for side in ("guided", "unguided"))


def clips_table(rows):
    head = ["reference", "prompt", "direction", "fidelity", "local fidelity", "colour and shape", "consistency, dB", "mean flow, px"]
    lines = []
    for row in rows:
        ways, seen = (" / ".join(yes(row[s][key]) for s in ("guided", "unguided")) for key in ("direction", "both"))
        numbers = [pair(row, "fidelity"), pair(row, "local"), seen, pair(row, "consistency", "{:.1f}"), pair(row, "speed")]
        lines.append([row["name"], row["prompt"], ways, *numbers])
    whole = {side: {key: average(rows, side, key) for key in rows[0][side]} for side in ("guided", "unguided")}
    numbers = [pair(whole, key) for key in ("direction", "fidelity", "local", "both")]
    lines.append(["**all**", "", *numbers, pair(whole, "consistency", "{:.1f}"), pair(whole, "speed")])
    return table(head, lines)


def images_table(rows, what):
    head = ["reference", "prompt", what, "direction", "fidelity", "colour and shape"]
    lines = []
    for row in rows:
        guided = row["guided"]
        cells = [f"{row['frame']:.2f}", yes(guided["direction"]), f"{guided['fidelity']:.2f}", yes(guided["both"])]
        lines.append([row["name"], row["prompt"], *cells])
    return table(head, lines)


def sweep_table(swept, defaults):
    head = ["setting", "value", "direction", "fidelity", "local fidelity", "colour", "shape", "consistency, dB"]
    lines = []
    for name, settings in swept.items():
        for label, m in settings.items():
            shown = f"**{label}**" if label == chosen(name, defaults) else label
            cells = [f"{m[key]:.2f}" for key in ("direction", "fidelity", "local", "colour", "shape")]
            lines.append([name, shown, *cells, f"{m['consistency']:.1f}"])
    return table(head, lines)


def chosen(name, defaults):
    """The bundle's default of a swept setting, as the sweep labels it."""
    value = defaults[{"motion weight": "motion_weight", "guidance steps": "guidance_steps", "blocks": "blocks"}[name]]
    return ",".join(value) if isinstance(value, list) else f"{value:g}"


def markdown(measured, reached):
    d = measured["defaults"]
    text = ["Every value pair is guided / unguided, the same seed.\n"]
    text.append(table(["asked", "reached", ""], [[what, value, "met" if ok else "**missed**"] for what, value, ok in reached]))
    text.append(
        f"{d['steps']} steps, {d['guidance_steps']} of them guided over {d['guidance_scale']:g} of the schedule, motion "
        f"weight {d['motion_weight']:g}, {' and '.join(d['blocks'])}, cfg {d['cfg']:g}.\n"
    )
    text.append(clips_table(measured["clips"]))
    if "pictures" in measured:
        text.append("A picture as first frame:\n\n" + images_table(measured["pictures"], "first frame, dB"))
    if "sketches" in measured:
        text.append("A sketch as first frame:\n\n" + images_table(measured["sketches"], "IoU, first frame"))
    if "footage" in measured:
        head = "Real footage, a known camera over photographs, or a part of one on a known path over another:\n\n"
        text.append(head + footage_table(measured["footage"]))
    if "sweep" in measured:
        text.append("Sweeps over clips of their own, the defaults in bold:\n\n" + sweep_table(measured["sweep"], d))
    return "\n".join(text)


def drawing(measured):
    drawn = plot.Plot(720)
    for key, title in (("fidelity", "Motion fidelity (best matching track)"), ("local", "Motion fidelity (nearby tracks)")):
        rows = [(row["name"], row["guided"][key], row["unguided"][key]) for row in measured["clips"]]
        drawn.pairs(f"{title}, each reference clip", rows)
    for name in ("motion weight", "guidance steps"):
        if swept := measured.get("sweep", {}).get(name):
            curves = [
                ("direction accuracy", [m["direction"] for m in swept.values()], plot.GUIDED),
                ("fidelity", [m["fidelity"] for m in swept.values()], plot.UNGUIDED),
                ("local fidelity", [m["local"] for m in swept.values()], plot.INK),
                ("colour and shape", [m["both"] for m in swept.values()], plot.OTHER),
            ]
            drawn.curves(f"Sweep of {name}", list(swept), curves, chosen(name, measured["defaults"]))
    return drawn


def write(measured, folder, quick):
    """Writes RESULT.md and fidelity.svg, prints the goals, and gives those that were missed."""
    folder.mkdir(parents=True, exist_ok=True)
    reached = list(goals(measured, quick))
    (folder / "RESULT.md").write_text(markdown(measured, reached))
    drawing(measured).write(folder / "fidelity.svg")
    for what, value, ok in reached:
        print(f"{'met   ' if ok else 'MISSED'} {what}: {value}")
    print(f"figures: {folder / 'RESULT.md'}, {folder / 'fidelity.svg'}")
    return [f"{what}: {value}" for what, value, ok in reached if not ok]
