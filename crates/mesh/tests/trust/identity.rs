use std::fs;
use std::sync::Barrier;

use hearth_mesh::identity::{Identity, IdentityError, OpenError, is_key, open, verify};
use hearth_protocol::household::NodeId;
use proptest::prelude::*;

#[test]
fn a_key_is_made_once_and_is_its_owners_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("new").join("node.key");
    let first = Identity::load_or_create(&path).unwrap();
    let again = Identity::load_or_create(&path).unwrap();
    assert_eq!(first.id(), again.id());
    assert!(is_key(&first.id()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let names = fs::read_dir(path.parent().unwrap()).unwrap();
    assert_eq!(names.count(), 1, "nothing half-written is left");
}

#[test]
fn whoever_starts_at_once_gets_the_same_key() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("node.key");
    let barrier = Barrier::new(8);
    let ids: Vec<NodeId> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    Identity::load_or_create(&path).unwrap().id()
                })
            })
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("node.key");
    let id = Identity::load_or_create(&path).unwrap().id();
    for mode in [0o640, 0o604, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Exposed { .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(Identity::load_or_create(&path).unwrap().id(), id);
}

#[test]
fn a_damaged_key_is_refused_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("node.key");
    Identity::load_or_create(&path).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let flipped = whole.replacen(|letter: char| letter.is_ascii_digit(), "x", 3);
    let other_secret = {
        let at = "ed25519 ".len();
        let digit = if whole[at..].starts_with('a') {
            "b"
        } else {
            "a"
        };
        format!("{}{digit}{}", &whole[..at], &whole[at + 1..])
    };
    for text in [
        "",
        "ed25519",
        &whole[..80],
        &flipped,
        &other_secret,
        &format!("{whole} more"),
    ] {
        fs::write(&path, text).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{text:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::write(&path, [0xff; 90]).unwrap();
    assert!(Identity::load_or_create(&path).is_err());
}

#[test]
fn sealed_text_is_opened_by_its_authors_id_alone() {
    let (author, other) = (Identity::generate(), Identity::generate());
    let sealed = author.seal(&vec!["a", "b"]).unwrap();
    assert_eq!(
        open::<Vec<String>>(&sealed, &author.id()).unwrap(),
        ["a", "b"]
    );
    assert!(matches!(
        open::<Vec<String>>(&sealed, &other.id()),
        Err(OpenError::Signature(_))
    ));
    let mut changed = sealed.clone();
    changed.text.push(' ');
    assert!(open::<Vec<String>>(&changed, &author.id()).is_err());
    for signature in ["", "!", "AAAA", &sealed.signature[1..]] {
        let mut changed = sealed.clone();
        changed.signature = signature.to_owned();
        assert!(open::<Vec<String>>(&changed, &author.id()).is_err());
    }
    assert!(matches!(
        open::<u32>(&sealed, &author.id()),
        Err(OpenError::Text(_))
    ));
}

/// By the identity of the curve as a key, a signature of zeros is good over any text where the check is not strict.
#[test]
fn weak_keys_are_nobody() {
    let mut weak = [0; 32];
    weak[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(!is_key(&NodeId(weak)));
    assert!(!verify(&NodeId(weak), b"anything", &signature));
    assert!(!is_key(&NodeId([2; 32])), "no point of the curve");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_signature_is_over_one_text(text in ".{0,40}", at in 0_usize..64, bit in 0_u8..8) {
        let identity = Identity::generate();
        let mut signature = identity.sign(text.as_bytes());
        prop_assert!(verify(&identity.id(), text.as_bytes(), &signature));
        let other = format!("{text}.");
        prop_assert!(!verify(&identity.id(), other.as_bytes(), &signature));
        signature[at] ^= 1 << bit;
        prop_assert!(!verify(&identity.id(), text.as_bytes(), &signature));
    }
}
