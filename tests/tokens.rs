//! Odd prompts have the ids that the reference tokenizer gives them.

mod recorded;

use motionclone::tokenizer::Tokenizer;

/// `tests/tokens.json` holds prompts with the ids that `CLIPTokenizer` of transformers 4.46 gives them with the
/// published vocabulary, without the padding.
#[test]
fn odd_prompts_have_the_ids_of_the_reference_tokenizer() {
    let table: Vec<(String, Vec<i64>)> = serde_json::from_str(include_str!("tokens.json")).unwrap();
    let tokenizer = Tokenizer::open(&recorded::golden().join("checkpoints/StableDiffusion/tokenizer")).unwrap();
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
