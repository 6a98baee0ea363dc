//! Users of the operating system: who did something to the gateway.
//!
//! A user is the name that `/etc/passwd` gives to its number, or `uid:` and the number. No name there holds a `:`, so
//! that neither `uid:` nor `owner:` is ever a part of one.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use schemas::Identifier;

const PASSWD: &str = "/etc/passwd";
const UID: &str = "uid:";
/// Before the user whose file it is: who could change it, which is not who did.
const OWNER: &str = "owner:";

/// The user of a process, by its number.
pub(crate) fn named(uid: u32) -> Option<Identifier> {
    let users = std::fs::read_to_string(PASSWD).unwrap_or_default();
    name_in(&users, uid).or_else(|| Identifier::new(format!("{UID}{uid}")).ok())
}

/// The user of this process.
pub(crate) fn own() -> Option<Identifier> {
    named(rustix::process::geteuid().as_raw())
}

/// `owner:` and the user whose file this is, or whose its folder is where the file is gone.
pub(crate) fn owner(path: &Path) -> Option<Identifier> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = std::fs::metadata(path).or_else(|_| std::fs::metadata(folder)).ok()?;
    Identifier::new(format!("{OWNER}{}", named(found.uid())?)).ok()
}

/// Whether this is a user's name or number.
pub(crate) fn is_one(user: &Identifier) -> bool {
    let number = user.as_str().strip_prefix(UID);
    number.map_or(!user.as_str().contains(':'), |number| number.parse::<u32>().is_ok())
}

/// The name of `uid` in `users`, lines of `passwd(5)`, where it is an identifier.
fn name_in(users: &str, uid: u32) -> Option<Identifier> {
    let mut lines = users.lines().map(|line| line.split(':'));
    let name = lines.find_map(|mut fields| {
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    })?;
    // Longer ones would not fit behind `owner:`.
    Identifier::new(name).ok().filter(|name| name.as_str().len() <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_of_its_number_and_else_the_number() {
        let long = "x".repeat(101);
        let users = format!(
            "root:x:0:0:root:/root:/bin/bash\n# 7\nann:x:1000:100::/home/ann:/bin/sh\nbob:x:1000:100::/:\n\
             wide name:x:8:8::/:\n{long}:x:9:9::/:\nbroken:x\n"
        );
        let name = |uid| name_in(&users, uid).map(|name| name.to_string());
        assert_eq!((name(0).as_deref(), name(1000).as_deref()), (Some("root"), Some("ann")));
        for uid in [1, 7, 8, 9, 100] {
            assert_eq!(name(uid), None, "{uid}");
        }
        assert_eq!(named(4_294_000_001).unwrap().as_str(), "uid:4294000001");
    }

    #[test]
    fn an_owner_is_never_taken_for_a_user() {
        let folder = tempfile::tempdir().unwrap();
        let (own, owner) = (own().unwrap(), owner(&folder.path().join("gone")).unwrap());
        assert_eq!(owner.as_str(), format!("owner:{own}"));
        let is_user = |text: &str| is_one(&Identifier::new(text).unwrap());
        assert!(is_one(&own) && is_user("ann@corp") && is_user("uid:7"));
        assert!(!is_one(&owner) && !is_user("uid:ann") && !is_user("uid:7:7") && !is_user("a:b"));
    }
}
