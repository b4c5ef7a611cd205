//! A file that appears when it is whole: nobody reads half of it, and an older one stays until then.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

use crate::cli::Failure;

/// Lets `fill` write into a file beside `path`, and renames that to `path`; where `fill` fails or has nothing (none), `path` stays as it
/// is. `mode` is the new file's, before the umask.
///
/// # Errors
/// `path` is no file's name, its folder cannot be written, or what `fill` says.
pub fn write<T>(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    let mut name = path.file_name().with_context(|| format!("{} is no file's name", path.display()))?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let cannot = || format!("cannot write {}", part.display());
    // A new file: in a folder that others may write into, what stands there under this name may be a link of theirs.
    let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part).with_context(cannot)?;
    let filled = fill(&mut out).and_then(|done| {
        if done.is_some() {
            fs::rename(&part, path).with_context(|| format!("cannot rename {} to {}", part.display(), path.display()))?;
        }
        Ok(done)
    });
    if !matches!(filled, Ok(Some(_))) {
        // What cannot be removed lies beside the file, under a name that says what it is.
        let _ = fs::remove_file(&part);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn an_older_file_stays_until_the_new_one_is_whole() {
        let folder = std::env::temp_dir().join(format!("margay-whole-file-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("table");
        let put = |words: &'static str, done: Option<u8>| {
            write(&path, 0o600, move |out| {
                out.write_all(words.as_bytes()).map_err(anyhow::Error::from)?;
                Ok(done)
            })
        };
        assert_eq!(put("old", Some(1)).unwrap(), Some(1));
        assert_eq!(put("half", None).unwrap(), None);
        assert!(write(&path, 0o600, |_| Err::<Option<u8>, _>(Failure::Other(anyhow::anyhow!("no")))).is_err());
        assert_eq!((fs::read_to_string(&path).unwrap(), names(&folder)), ("old".to_owned(), vec!["table".to_owned()]));
        assert_eq!(put("new", Some(2)).unwrap(), Some(2));
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        // A link that somebody has put where the part would be is not followed.
        let aim = folder.join("aim");
        std::os::unix::fs::symlink(&aim, folder.join(format!("table.{}.part", std::process::id()))).unwrap();
        assert!(put("elsewhere", Some(3)).is_err() && !aim.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
