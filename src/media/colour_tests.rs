//! Every way of coding colours that ffmpeg can write here, read and compared with what the standards say of the very code
//! values in the file, in float64: BT.601, BT.709 and BT.2020, limited and full range, 8 and 10 bit, SDR, PQ and HLG, in
//! MP4, MOV, Matroska and PNG.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ffmpeg::Ffmpeg;
use super::testing::read;

/// Patches of one colour, and pixels along a side of each.
const PATCHES: usize = 16;
const SIDE: usize = 16;
const SDR_WITHIN: f64 = 2.0;
const HDR_WITHIN: f64 = 8.0;

#[derive(Debug, Clone, Copy)]
struct Coding {
    /// ffmpeg's names of matrix, primaries, and the SDR transfer.
    names: [&'static str; 3],
    /// H.273's number of the primaries.
    code_point: u8,
    red: f64,
    blue: f64,
}

const CODINGS: [Coding; 3] = [
    Coding { names: ["smpte170m", "smpte170m", "smpte170m"], code_point: 6, red: 0.299, blue: 0.114 },
    Coding { names: ["bt709", "bt709", "bt709"], code_point: 1, red: 0.2126, blue: 0.0722 },
    Coding { names: ["bt2020nc", "bt2020", "bt2020-10"], code_point: 9, red: 0.2627, blue: 0.0593 },
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Light {
    Sdr,
    Pq,
    Hlg,
}

/// Colours as R'G'B' from 0 to 1: the corners of the cube, greys, and others.
fn colours() -> Vec<[f64; 3]> {
    let corners = (1..8).map(|bits| [0, 1, 2].map(|bit| f64::from(bits >> bit & 1)));
    let greys = [0.0, 0.25, 0.5, 0.75].map(|grey| [grey; 3]);
    let others = [[0.8, 0.3, 0.1], [0.2, 0.5, 0.7], [0.35, 0.6, 0.3], [0.9, 0.75, 0.7], [0.1, 0.05, 0.4]];
    corners.chain(greys).chain(others).collect()
}

impl Coding {
    /// Luma and chroma as integers of so many bits.
    fn encode(&self, rgb: [f64; 3], bits: u32, is_full: bool) -> [u16; 3] {
        let [r, g, b] = rgb;
        let y = self.red * r + (1.0 - self.red - self.blue) * g + self.blue * b;
        let chroma = [(b - y) / (2.0 * (1.0 - self.blue)), (r - y) / (2.0 * (1.0 - self.red))];
        let step = f64::from(1_u32 << (bits - 8));
        let most = f64::from((1_u32 << bits) - 1);
        let [(y_scale, y_zero), (c_scale, c_zero)] = scales(step, most, is_full);
        [y * y_scale + y_zero, chroma[0] * c_scale + c_zero, chroma[1] * c_scale + c_zero]
            .map(|value| value.round().clamp(0.0, most) as u16)
    }

    /// R'G'B' of such integers.
    fn decode(&self, yuv: [u16; 3], bits: u32, is_full: bool) -> [f64; 3] {
        let step = f64::from(1_u32 << (bits - 8));
        let [(y_scale, y_zero), (c_scale, c_zero)] = scales(step, f64::from((1_u32 << bits) - 1), is_full);
        let y = (f64::from(yuv[0]) - y_zero) / y_scale;
        let [cb, cr] = [yuv[1], yuv[2]].map(|value| (f64::from(value) - c_zero) / c_scale);
        let (r, b) = (y + 2.0 * (1.0 - self.red) * cr, y + 2.0 * (1.0 - self.blue) * cb);
        let g = (y - self.red * r - self.blue * b) / (1.0 - self.red - self.blue);
        [r, g, b].map(|value| value.clamp(0.0, 1.0))
    }
}

fn scales(step: f64, most: f64, is_full: bool) -> [(f64, f64); 2] {
    if is_full {
        [(most, 0.0), (most, 128.0 * step)]
    } else {
        [(219.0 * step, 16.0 * step), (224.0 * step, 128.0 * step)]
    }
}

/// What is to be seen of R'G'B', of 255.
fn truth(coding: &Coding, light: Light, rgb: [f64; 3]) -> [f64; 3] {
    let is_wide = coding.code_point == 9;
    let white = 203.0;
    let linear = match light {
        Light::Sdr if !is_wide => return rgb.map(|value| value * 255.0),
        Light::Sdr => rgb.map(|value| value.powf(2.4)),
        Light::Pq => rgb.map(|code| {
            let (m1, m2) = (2610.0 / 16384.0, 2523.0 / 4096.0 * 128.0);
            let (c1, c2, c3) = (3424.0 / 4096.0, 2413.0 / 4096.0 * 32.0, 2392.0 / 4096.0 * 32.0);
            let power = code.powf(1.0 / m2);
            10000.0 * ((power - c1).max(0.0) / (c2 - c3 * power)).powf(1.0 / m1) / white
        }),
        Light::Hlg => {
            let (a, b, c) = (0.17883277, 0.28466892, 0.55991073);
            let scene =
                rgb.map(|code: f64| if code <= 0.5 { code * code / 3.0 } else { (((code - c) / a).exp() + b) / 12.0 });
            let luminance = 0.2627 * scene[0] + 0.6780 * scene[1] + 0.0593 * scene[2];
            scene.map(|value| value * luminance.powf(0.2) * 1000.0 / white)
        }
    };
    let linear = if is_wide { to_bt709(linear) } else { linear };
    let mut linear = linear.map(|value| value.max(0.0));
    if light != Light::Sdr {
        let (knee, peak) = (0.3, 1000.0 / white);
        let largest = linear.into_iter().fold(0.0, f64::max);
        if largest > knee {
            let a = -knee * knee * (peak - 1.0) / (knee * knee - 2.0 * knee + peak);
            let b = (knee * knee - 2.0 * knee * peak + peak) / (peak - 1.0);
            let bent = (b * b + 2.0 * b * knee + knee * knee) / (b - a) * (largest + a) / (largest + b);
            linear = linear.map(|value| value * bent.min(1.0) / largest);
        }
    }
    linear.map(|value| {
        let value = value.clamp(0.0, 1.0);
        255.0
            * match light {
                Light::Sdr => value.powf(1.0 / 2.4),
                _ if value <= 0.0031308 => value * 12.92,
                _ => 1.055 * value.powf(1.0 / 2.4) - 0.055,
            }
    })
}

/// Light of BT.2020's primaries as BT.709's, from the chromaticities of both by way of XYZ.
fn to_bt709(light: [f64; 3]) -> [f64; 3] {
    let xyz = apply(&to_xyz([[0.708, 0.292], [0.170, 0.797], [0.131, 0.046]]), light);
    apply(&inverse(to_xyz([[0.64, 0.33], [0.30, 0.60], [0.15, 0.06]])), xyz)
}

type Matrix = [[f64; 3]; 3];

fn to_xyz(primaries: [[f64; 2]; 3]) -> Matrix {
    let column = |[x, y]: [f64; 2]| [x / y, 1.0, (1.0 - x - y) / y];
    let columns = primaries.map(column);
    let rows = [0, 1, 2].map(|row| [0, 1, 2].map(|at| columns[at][row]));
    let gains = apply(&inverse(rows), column([0.3127, 0.3290]));
    rows.map(|row| [0, 1, 2].map(|at| row[at] * gains[at]))
}

fn apply(matrix: &Matrix, vector: [f64; 3]) -> [f64; 3] {
    matrix.map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum())
}

fn inverse(m: Matrix) -> Matrix {
    let cofactor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f64 = (0..3).map(|c| m[0][c] * cofactor(0, c)).sum();
    [0, 1, 2].map(|r| [0, 1, 2].map(|c| cofactor(c, r) / determinant))
}

/// Writes a clip of two frames; none where ffmpeg lacks the encoder.
fn write(path: &Path, coding: &Coding, light: Light, bits: u32, is_full: bool, pixels: &[[u16; 3]]) -> bool {
    let (width, height) = (PATCHES * SIDE, SIDE);
    assert_eq!(pixels.len(), PATCHES);
    let mut raw = Vec::new();
    let planes = [0, 1, 2].map(|channel| pixels.iter().map(move |pixel| pixel[channel]));
    for plane in planes {
        for _ in 0..height {
            let row = plane.clone().flat_map(|value| std::iter::repeat_n(value, SIDE));
            row.for_each(|value| raw.extend(&value.to_le_bytes()[..if bits > 8 { 2 } else { 1 }]));
        }
    }
    let format = if bits > 8 { "yuv444p10le" } else { "yuv444p" };
    let [matrix, primaries, sdr] = coding.names;
    let transfer = match light {
        Light::Sdr => sdr,
        Light::Pq => "smpte2084",
        Light::Hlg => "arib-std-b67",
    };
    let range = if is_full { "pc" } else { "tv" };
    let params =
        format!("setparams=range={range}:color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}");
    let ffmpeg = Ffmpeg::find().expect("ffmpeg");
    let is_mkv = path.extension().is_some_and(|extension| extension == "mkv");
    let codec: &[&str] =
        if is_mkv { &["-c:v", "ffv1"] } else { &["-c:v", "libx264", "-qp", "0", "-preset", "ultrafast"] };
    let mut child = Command::new(&ffmpeg.path)
        .args([
            "-v",
            "quiet",
            "-y",
            "-f",
            "rawvideo",
            "-pix_fmt",
            format,
            "-s",
            &format!("{width}x{height}"),
            "-r",
            "8",
        ])
        .args(["-i", "-", "-vf", &params])
        .args(codec)
        .args(["-color_primaries", primaries, "-color_trc", transfer, "-colorspace", matrix, "-color_range", range])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("ffmpeg");
    let mut input = child.stdin.take().expect("a pipe");
    for _ in 0..2 {
        // Without the encoder, ffmpeg has ended already.
        let _ = input.write_all(&raw);
    }
    drop(input);
    child.wait().expect("ffmpeg").success()
}

/// Two PNGs, whose cICP chunk says how they are coded.
fn write_pngs(folder: &Path, coding: &Coding, light: Light, bits: u32, pixels: &[[f64; 3]]) {
    std::fs::create_dir(folder).expect("a folder");
    let most = if bits > 8 { 65535.0 } else { 255.0 };
    let row = (0..PATCHES * SIDE).flat_map(|x| pixels[x / SIDE].map(|value| (value * most).round() as u16));
    let row: Vec<u16> = row.collect();
    let (width, height) = ((PATCHES * SIDE) as u32, SIDE as u32);
    for index in 0..2 {
        let path = folder.join(format!("{index}.png"));
        if bits > 8 {
            let bytes: Vec<u8> = row.repeat(SIDE).iter().flat_map(|value| value.to_ne_bytes()).collect();
            image::save_buffer(&path, &bytes, width, height, image::ExtendedColorType::Rgb16).expect("a picture");
        } else {
            let bytes: Vec<u8> = row.repeat(SIDE).iter().map(|value| *value as u8).collect();
            image::save_buffer(&path, &bytes, width, height, image::ExtendedColorType::Rgb8).expect("a picture");
        }
        let transfer = match light {
            Light::Sdr => 13,
            Light::Pq => 16,
            Light::Hlg => 18,
        };
        let mut file = std::fs::read(&path).expect("a picture");
        let body = [b"cICP".as_slice(), &[coding.code_point, transfer, 0, 1]].concat();
        let chunk = [&4_u32.to_be_bytes()[..], &body, &checksum(&body).to_be_bytes()].concat();
        // Behind the signature and the header.
        file.splice(33..33, chunk);
        std::fs::write(&path, file).expect("a written file");
    }
}

/// PNG's CRC-32.
fn checksum(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 })
    })
}

/// The largest difference between a clip and the truth, and where it is.
fn worst(path: &Path, expected: &[[f64; 3]]) -> (f64, String) {
    let frames = read(path, 2, PATCHES * SIDE, SIDE).unwrap_or_else(|e| panic!("{e}"));
    let mut worst = (0.0, String::new());
    for (patch, colour) in expected.iter().enumerate() {
        let at = (SIDE / 2 * PATCHES * SIDE + patch * SIDE + SIDE / 2) * 3;
        let got = &frames.frame(1)[at..at + 3];
        let off = got.iter().zip(colour).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        if off > worst.0 {
            worst = (off, format!("patch {patch}: {got:?}, expected {colour:.1?}"));
        }
    }
    worst
}

#[test]
fn colours_are_read_by_what_they_mean() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let colours = colours();
    assert_eq!(colours.len(), PATCHES);
    let mut failures = Vec::new();
    let mut most = [0.0_f64; 2];
    for coding in &CODINGS {
        for light in [Light::Sdr, Light::Pq, Light::Hlg] {
            let within = if light == Light::Sdr { SDR_WITHIN } else { HDR_WITHIN };
            let mut judge = |what: String, path: PathBuf, expected: &[[f64; 3]]| {
                let (off, place) = worst(&path, expected);
                let kind = usize::from(light != Light::Sdr);
                most[kind] = most[kind].max(off);
                if off > within {
                    failures.push(format!("{what}: off by {off:.2}: {place}"));
                }
            };
            for bits in [8, 10] {
                for is_full in [false, true] {
                    let pixels: Vec<[u16; 3]> = colours.iter().map(|rgb| coding.encode(*rgb, bits, is_full)).collect();
                    let expected: Vec<[f64; 3]> =
                        pixels.iter().map(|yuv| truth(coding, light, coding.decode(*yuv, bits, is_full))).collect();
                    for container in ["mp4", "mov", "mkv"] {
                        let path = folder.path().join(format!("clip.{container}"));
                        if write(&path, coding, light, bits, is_full, &pixels) {
                            let what = format!("{} {light:?} {bits} bit, full {is_full}, {container}", coding.names[1]);
                            judge(what, path, &expected);
                        } else {
                            println!("skipped: this ffmpeg cannot write {container} of {bits} bit");
                        }
                    }
                }
                let place = folder.path().join(format!("{}{light:?}{bits}", coding.names[1]));
                write_pngs(&place, coding, light, bits, &colours);
                let most = if bits > 8 { 65535.0 } else { 255.0 };
                let expected: Vec<[f64; 3]> = colours
                    .iter()
                    .map(|rgb| truth(coding, light, rgb.map(|value| (value * most).round() / most)))
                    .collect();
                judge(format!("{} {light:?} {bits} bit, png", coding.names[1]), place, &expected);
            }
        }
    }
    println!("off by at most {:.2} of 255 in SDR, {:.2} in HDR", most[0], most[1]);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
