//! A disk that is full when a test wants it to be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of a few megabytes, in memory.
pub struct SmallDisk(PathBuf);

const BALLAST: &str = "ballast";

impl SmallDisk {
    /// `size` as mount(8) has it for tmpfs: `8m`.
    pub fn mount(at: &Path, size: &str) -> SmallDisk {
        fs::create_dir_all(at).expect("the mount point");
        let disk = SmallDisk(at.into());
        disk.call("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs"]);
        disk
    }

    /// Takes all the room that is left, until [`SmallDisk::free`].
    pub fn fill(&self) {
        let mut ballast = fs::File::create(self.0.join(BALLAST)).expect("a file");
        // By small steps at the end, or the next page would still find room.
        for step in [1 << 20, 4 << 10] {
            while io::Write::write_all(&mut ballast, &vec![1; step]).is_ok() {}
        }
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join(BALLAST)).expect("the ballast");
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
