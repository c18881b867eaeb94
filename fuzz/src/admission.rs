//! What must hold of what the API server's questions are read with. The two files are compiled in
//! here by themselves: they use nothing else of their crate, whose own dependencies would take far
//! longer to build with counters.

#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/kuboard-admission/src/review.rs"]
mod asked;
#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/kuboard-admission/src/images.rs"]
mod images;

use asked::{MAX_USES, Operation, Review, uid_of};

/// Questions: a refusal names the uid that the text shows, what is judged is bounded, and every
/// image is brought into a form that is its own.
pub fn review(input: &[u8]) {
    let review = match Review::parse(input) {
        Ok(review) => review,
        Err(refusal) => {
            assert_eq!(refusal.uid, uid_of(input));
            assert!(refusal.why.len() <= crate::MAX_MESSAGE_BYTES);
            return;
        }
    };
    assert!(!review.uid.as_str().is_empty());
    let old = review.old_images().unwrap_or_default();
    assert!(old.is_empty() || review.operation == Operation::Update);
    let Ok(Some(workload)) = review.workload() else { return };
    assert!(workload.uses.len() <= MAX_USES);
    for one in &workload.uses {
        let Ok(image) = images::normalised(one.image.as_str()) else { continue };
        let again = images::normalised(&image.to_string());
        // A host that is only told from a name by its capitals keeps them.
        if let Ok(again) = again {
            assert_eq!(again, image, "{:?}", one.image);
        }
        let name = images::Name::of(&image);
        assert!(!name.registry.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert_eq!(name.tag.is_none(), image.digest.is_some());
    }
}
