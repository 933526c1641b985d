//! A disk that is full when a test wants it to be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of a few megabytes, in memory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `size` as mount(8) has it for tmpfs: `8m`.
    pub fn mount(at: &Path, size: &str) -> SmallDisk {
        fs::create_dir_all(at).expect("the mount point");
        let disk = SmallDisk(at.into());
        disk.call("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs"]);
        disk
    }

    pub fn grow(&self) {
        self.call("mount", &["-o", "remount,size=512m"]);
    }

    fn call(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program).args(arguments).arg(&self.0).status().expect("mount is installed");
        assert!(
            status.success(),
            "{program} {arguments:?} on {}: {status} (the tests need root)",
            self.0.display()
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, for the daemon may not have ended yet.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
