//! Executable mappings, put together by program image.
//!
//! The kernel reports them CPU by CPU, and a process changes CPUs: what belongs together is in order
//! only after sorting by time. A moment after a round everything older than its beginning has been
//! read.

use std::collections::HashMap;

use crate::record::schema::MappedFile;

/// A record may become readable this much later than its time says.
const LAG_NS: u64 = 10_000_000;

/// The files of one image, or of the time between images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub pid: u32,
    /// Of the first mapping.
    pub t_ns: u64,
    /// When the image came about; absent for a process that has executed nothing since it was forked.
    pub since_ns: Option<u64>,
    pub files: Vec<MappedFile>,
}

/// What happened to the images of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageEvent {
    New,
    Mapped(MappedFile),
    Ended,
}

#[derive(Debug, Default)]
pub struct Images {
    /// Time, pid and event.
    waiting: Vec<(u64, u32, ImageEvent)>,
    open: HashMap<u32, Image>,
}

impl Images {
    pub fn add(&mut self, t_ns: u64, pid: u32, event: ImageEvent) {
        self.waiting.push((t_ns, pid, event));
    }

    /// Takes in what is older than `now_ns` by a moment, or all, and returns the images that are
    /// complete.
    pub fn take(&mut self, now_ns: Option<u64>) -> Vec<Image> {
        let until = now_ns.map_or(u64::MAX, |now_ns| now_ns.saturating_sub(LAG_NS));
        self.waiting.sort_by_key(|(t_ns, ..)| *t_ns);
        let ready = self.waiting.partition_point(|(t_ns, ..)| *t_ns < until);
        let mut done = Vec::new();
        for (t_ns, pid, event) in self.waiting.drain(..ready) {
            let fresh = |since_ns| Image { pid, t_ns, since_ns, files: Vec::new() };
            match event {
                ImageEvent::New => done.extend(self.open.insert(pid, fresh(Some(t_ns)))),
                ImageEvent::Ended => done.extend(self.open.remove(&pid)),
                ImageEvent::Mapped(file) => {
                    let image = self.open.entry(pid).or_insert_with(|| fresh(None));
                    if !image.files.contains(&file) {
                        image.files.push(file);
                    }
                }
            }
        }
        if now_ns.is_none() {
            let mut rest: Vec<Image> = self.open.drain().map(|(_, image)| image).collect();
            rest.sort_by_key(|image| (image.t_ns, image.pid));
            done.extend(rest);
        }
        done.retain(|image| !image.files.is_empty());
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Device, FileId};

    const PID: u32 = 5;

    fn mapped(inode: u64) -> ImageEvent {
        let id = FileId { device: Device::new(8, 1), inode };
        ImageEvent::Mapped(MappedFile::new("/x".into(), id, Err("untried".into())))
    }

    fn inodes(images: &[Image]) -> Vec<(Option<u64>, Vec<u64>)> {
        let inodes = |image: &Image| image.files.iter().map(|file| file.id.inode).collect();
        images.iter().map(|image| (image.since_ns, inodes(image))).collect()
    }

    #[test]
    fn files_go_to_the_image_of_their_time_in_whatever_order_they_are_read() {
        let mut images = Images::default();
        for (t_ns, event) in [
            (25, mapped(3)),
            (11, mapped(1)),
            (12, mapped(1)),
            (20, ImageEvent::New),
            (10, ImageEvent::New),
            (5, mapped(9)),
        ] {
            images.add(t_ns, PID, event);
        }
        assert_eq!(
            inodes(&images.take(None)),
            [(None, vec![9]), (Some(10), vec![1]), (Some(20), vec![3])]
        );
    }

    #[test]
    fn what_may_not_be_complete_waits() {
        let mut images = Images::default();
        images.add(1, PID, ImageEvent::New);
        images.add(2, PID, mapped(1));
        images.add(3, PID, ImageEvent::Ended);
        assert!(images.take(Some(LAG_NS)).is_empty());
        assert_eq!(images.take(Some(LAG_NS + 4)).len(), 1);
    }
}
