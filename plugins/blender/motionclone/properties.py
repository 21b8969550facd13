"""The settings of a clone: in the scene, saved with the file."""

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

QUALITIES = [
    ("DRAFT", "Draft", "Fewer steps, to see whether the motion is right"),
    ("STANDARD", "Standard", "The model's own steps"),
    ("BEST", "Best", "Twice the model's own steps"),
    ("CUSTOM", "Custom", "As many steps as set below"),
]


class MOTIONCLONE_settings(bpy.types.PropertyGroup):
    reference: StringProperty(name="Reference", description="Strip whose motion is cloned; the active one when empty")
    prompt: StringProperty(name="Prompt", description="What the new clip shows")
    prompt_text: PointerProperty(
        name="Prompt Text", type=bpy.types.Text, description="A text of the text editor, taken in place of the prompt"
    )
    negative_prompt: StringProperty(
        name="Negative", description="What the new clip must not show; what the model has by default when empty"
    )
    negative_prompt_text: PointerProperty(
        name="Negative Text",
        type=bpy.types.Text,
        description="A text of the text editor, taken in place of the negative prompt",
    )
    mode: EnumProperty(
        name="Mode",
        items=[
            ("TEXT", "Text", "The prompt alone decides what is shown"),
            ("PICTURE", "Picture", "The new clip begins with a picture"),
            ("SKETCH", "Sketch", "The new clip begins along a sketch, white lines on black"),
        ],
    )
    image: PointerProperty(name="Image", type=bpy.types.Image, description="The picture or sketch")
    image_strip: StringProperty(
        name="Or Strip", description="Strip whose frame under the playhead is the picture or sketch"
    )
    image_scale: FloatProperty(name="Image Strength", default=1.0, min=0.0, max=2.0)
    seed: IntProperty(name="Seed", default=2025, min=0, description="The same seed gives the same clip")
    strength: FloatProperty(
        name="Motion Strength",
        default=1.0,
        min=0.0,
        max=5.0,
        description="How strictly the motion is followed: 1 is the model's own, 0 leaves the motion to the model",
    )
    quality: EnumProperty(name="Quality", items=QUALITIES, default="STANDARD")
    steps: IntProperty(name="Steps", default=50, min=1, max=1000)
    size: EnumProperty(
        name="Size",
        items=[
            ("MODEL", "Model's Own", "As many pixels and frames as the model is made for"),
            ("CUSTOM", "Custom", "As set below"),
        ],
    )
    side: IntProperty(
        name="Side", default=512, min=64, max=1024, description="Side of a square of as many pixels as the new clip has"
    )
    frames: IntProperty(
        name="Frames", default=16, min=1, max=64, description="Frames of the new clip, taken evenly from the reference"
    )
    timing: EnumProperty(
        name="Timing",
        items=[
            ("REFERENCE", "As Reference", "The strip lasts as long as the reference; frames are held"),
            ("FRAMES", "Every Frame", "Each frame lasts one frame of the timeline"),
        ],
    )
    folder: StringProperty(
        name="Folder", subtype="DIR_PATH", description="Gets the new clips; motionclone beside the file when empty"
    )
