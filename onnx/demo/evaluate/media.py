"""Reading clips and images, and laying frames out on one sheet."""

import cv2
import numpy as np


def read_clip(path):
    """Bytes `[frames, height, width, 3]` of a video, or of a folder of PNG files."""
    if path.is_dir():
        return np.stack([read_image(file) for file in sorted(path.glob("*.png"))])
    video, frames = cv2.VideoCapture(str(path)), []
    while (frame := video.read())[0]:
        frames.append(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB))
    if not frames:
        raise SystemExit(f"{path}: no video that OpenCV reads")
    return np.stack(frames)


def read_image(path, kind=cv2.IMREAD_COLOR_RGB):
    image = cv2.imread(str(path), kind)
    if image is None:
        raise SystemExit(f"{path}: no image that OpenCV reads")
    return image


def write_sheet(path, rows, columns=(0, 3, 6, 9, 12, 15)):
    """A sheet with some frames of several clips side by side in each row; each row has a title."""
    lines = []
    for title, clips in rows:
        parts = []
        for clip in clips:
            parts += [clip[c] for c in columns if c < len(clip)] + [np.full((clip.shape[1], 8, 3), 255, np.uint8)]
        line = np.concatenate(parts[:-1], axis=1)
        strip = np.full((18, line.shape[1], 3), 255, np.uint8)
        cv2.putText(strip, title, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        lines += [strip, line]
    width = max(line.shape[1] for line in lines)
    lines = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate(lines)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
