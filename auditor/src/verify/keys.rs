//! The key table, read only: data keys of content. Never written to any file.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use schemas::Origin;
use schemas::content::DataKey;
use schemas::keytable::{HEADER_BYTES, KeyId, MAX_SLOTS, Page, SLOT_BYTES, Slot, decode_page, page_path};

use crate::finding::{Code, Findings, Place};
use crate::source::{DirectorySource, EntryKind, Source, SourceError};

/// What the table says of a key.
#[derive(Debug, Clone)]
pub enum Held {
    /// The key.
    Key(DataKey),
    /// It was destroyed, or its page is gone from a folder that is there.
    Gone,
    /// The bytes are no key.
    Damaged,
    /// Its page cannot be read here: nothing is known of it.
    Unread(String),
    /// The table does not know the log.
    OtherTable,
}

/// The largest page.
const PAGE_LIMIT: u64 = (HEADER_BYTES + MAX_SLOTS as usize * SLOT_BYTES) as u64;

/// How many pages are held at once.
const PAGES_HELD: usize = 256;

type PageResult = Option<Arc<Page>>;

/// Why there is no page although there is a file.
enum PageFault {
    /// Its bytes are no page.
    Damaged,
    /// This system does not give them.
    Unread(String),
}

/// A key table, or several.
#[derive(Debug)]
pub struct Keys {
    folders: Vec<(PathBuf, DirectorySource)>,
    pages: Mutex<HashMap<(Origin, u32), PageResult>>,
}

impl Keys {
    /// Opens the tables in `folders`.
    ///
    /// # Errors
    /// A path that is no folder.
    pub fn open<P: AsRef<Path>>(folders: &[P]) -> Result<Self, SourceError> {
        let open = |path: &P| {
            let path = path.as_ref();
            let failed = |error| SourceError::Io { name: path.display().to_string(), error };
            Ok((path.to_owned(), DirectorySource::new(path).map_err(failed)?))
        };
        let folders = folders.iter().map(open).collect::<Result<_, SourceError>>()?;
        Ok(Self { folders, pages: Mutex::default() })
    }

    /// Looks a key up.
    pub fn held(&self, id: &KeyId) -> Held {
        match self.page(&id.origin, id.page) {
            Ok(Some(page)) => match page.key(id.slot) {
                Slot::Key(key) => Held::Key(key),
                Slot::Destroyed => Held::Gone,
                Slot::Damaged | Slot::Absent => Held::Damaged,
            },
            Ok(None) => {
                let known = self.folders.iter().any(|(path, _)| path.join(id.origin.as_str()).is_dir());
                if known { Held::Gone } else { Held::OtherTable }
            }
            Err(PageFault::Damaged) => Held::Damaged,
            Err(PageFault::Unread(why)) => Held::Unread(why),
        }
    }

    /// `None`: there is no such page.
    fn page(&self, origin: &Origin, page: u32) -> Result<PageResult, PageFault> {
        let key = (origin.clone(), page);
        if let Some(found) = self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(found.clone());
        }
        let mut found = None;
        for (_, folder) in &self.folders {
            match folder.read(&page_path(origin, page), PAGE_LIMIT) {
                Ok(bytes) => {
                    let decoded = decode_page(origin, page, &bytes).map_err(|_| PageFault::Damaged)?;
                    found = Some(Arc::new(decoded));
                }
                Err(SourceError::Absent(_)) => continue,
                // No page is that long.
                Err(SourceError::TooLarge { .. }) => return Err(PageFault::Damaged),
                Err(error) => return Err(PageFault::Unread(error.to_string())),
            }
            break;
        }
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= PAGES_HELD {
            pages.clear();
        }
        pages.insert(key, found.clone());
        Ok(found)
    }

    /// Checks every page whole: header, check value of each slot, length.
    pub(super) fn check(&self, deployment: &str, findings: &mut Findings) {
        let mut seen = BTreeSet::new();
        for (path, folder) in &self.folders {
            let folders = folder.folders();
            for (name, error) in folders.unlisted {
                let place = Place::object(path.join(name).display().to_string());
                findings.add(Code::CouldNotRead, place, "a readable key table", error.to_string());
            }
            for name in folders.names {
                let Ok(origin) = Origin::new(name.as_str()) else { continue };
                if origin.deployment() != deployment {
                    continue;
                }
                let entries = match folder.entries(&name) {
                    Ok(entries) => entries,
                    Err(error) => {
                        let place = Place::object(format!("{}/{name}", path.display()));
                        findings.add(Code::CouldNotRead, place, "a readable key table", error.to_string());
                        continue;
                    }
                };
                for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
                    let number =
                        entry.name.strip_suffix(".keys").and_then(|number| number.parse::<u32>().ok());
                    let Some(number) =
                        number.filter(|number| page_path(&origin, *number).ends_with(&entry.name))
                    else {
                        continue;
                    };
                    if seen.insert((origin.clone(), number)) {
                        self.check_page(
                            &origin,
                            number,
                            &format!("{}/{name}/{}", path.display(), entry.name),
                            findings,
                        );
                    }
                }
            }
        }
    }

    fn check_page(&self, origin: &Origin, number: u32, file: &str, findings: &mut Findings) {
        let place = Place::object(file);
        match self.page(origin, number) {
            Ok(Some(page)) => {
                for slot in (0..page.slots()).filter(|slot| matches!(page.key(*slot), Slot::Damaged)) {
                    let place = place.clone().of_item(format!("slot {slot}"));
                    findings.add(
                        Code::KeyTableDamaged,
                        place,
                        "a data key, or zeros where it was destroyed",
                        "neither",
                    );
                }
            }
            Ok(None) => {}
            Err(PageFault::Damaged) => {
                findings.add(Code::KeyTableDamaged, place, "a page of the key table", "damaged")
            }
            Err(PageFault::Unread(why)) => {
                findings.add(Code::CouldNotRead, place, "a readable page of the key table", why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = Keys::open(&["/no/such/table"]).expect_err("no folder");
        assert!(error.to_string().contains("/no/such/table"), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_not_called_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let origin = Origin::new("acme/gw1/20261120t101500z-3f9a1c20").expect("an origin");
        let page = folder.path().join(page_path(&origin, 0));
        // A folder in the page's place: there is no way to read it.
        std::fs::create_dir_all(&page).expect("a folder");
        let keys = Keys::open(&[folder.path()]).expect("a key table");
        let id = KeyId { origin: origin.clone(), page: 0, slot: 0 };
        assert!(matches!(keys.held(&id), Held::Unread(_)), "{:?}", keys.held(&id));
        std::fs::remove_dir(&page).expect("it goes");
        std::fs::write(&page, b"no page").expect("a file");
        assert!(matches!(keys.held(&id), Held::Damaged));
        std::fs::remove_file(&page).expect("it goes");
        assert!(matches!(keys.held(&id), Held::Gone));
    }
}
