//! Directories of made-up people, as LDIF.

use bridgehead::directory::dn::Dn;
use bridgehead::sample::Directory;

use super::Site;

/// The sample with so many people (and a twentieth of that in contacts, and groups) for this site's context.
pub fn people(site: &Site, count: u32) -> Vec<u8> {
    people_of(&site.context, count)
}

/// The same for any naming context.
pub fn people_of(context: &str, count: u32) -> Vec<u8> {
    let context = Dn::parse(context).expect("a valid DN");
    let mut out = Vec::new();
    Directory { people: count, seed: 7, photos: 0.02 }
        .write_ldif(&context, &mut out)
        .expect("write to memory");
    out
}
