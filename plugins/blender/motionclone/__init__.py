"""MotionClone for Blender's Video Sequence Editor: new clips that move like the one you give."""

import bpy

from . import jobs, operators, panel, preferences, properties

CLASSES = (
    properties.MOTIONCLONE_settings,
    preferences.MOTIONCLONE_preferences,
    operators.MOTIONCLONE_OT_clone,
    operators.MOTIONCLONE_OT_batch,
    operators.MOTIONCLONE_OT_regenerate,
    operators.MOTIONCLONE_OT_extract,
    operators.MOTIONCLONE_OT_apply,
    operators.MOTIONCLONE_OT_cancel,
    operators.MOTIONCLONE_OT_save,
    operators.MOTIONCLONE_OT_clear,
    operators.MOTIONCLONE_OT_test,
    panel.MOTIONCLONE_PT_clone,
    panel.MOTIONCLONE_PT_jobs,
    panel.MOTIONCLONE_PT_motions,
)


# The preferences show jobs, which depend on them.
preferences.MOTIONCLONE_preferences.draw = panel.draw_preferences


def register():
    for kind in CLASSES:
        bpy.utils.register_class(kind)
    bpy.types.Scene.motionclone = bpy.props.PointerProperty(type=properties.MOTIONCLONE_settings)


def unregister():
    try:
        jobs.close_session()
    finally:
        del bpy.types.Scene.motionclone
        for kind in reversed(CLASSES):
            bpy.utils.unregister_class(kind)
