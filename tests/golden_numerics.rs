//! Text, noise, schedule, guidance and motion against the recorded runs of the reference (`tests/golden`).

use std::path::{Path, PathBuf};

use motionclone::text::Tokenizer;

/// The folder of the recorded data; `MOTIONCLONE_GOLDEN` names another one.
fn golden() -> PathBuf {
    std::env::var_os("MOTIONCLONE_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::open(&golden().join("checkpoints/StableDiffusion/tokenizer")).unwrap()
}

/// `tests/tokens.json` holds prompts with the ids that `CLIPTokenizer` of transformers 4.46 gives them with the published
/// vocabulary, without the padding.
#[test]
fn odd_prompts_have_the_ids_of_the_reference_tokenizer() {
    let table: Vec<(String, Vec<i64>)> = serde_json::from_str(include_str!("tokens.json")).unwrap();
    let tokenizer = tokenizer();
    assert!(table.len() > 50);
    let mut wrong = Vec::new();
    for (prompt, mut expected) in table {
        expected.resize(77, 49407);
        let ids = tokenizer.encode(&prompt, 77).unwrap().ids;
        if ids != expected {
            wrong.push(format!("{prompt:?}\n     got {ids:?}\nexpected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
