//! A made-up organization as LDIF: people, contacts and groups like those of real directories.
//!
//! PROMISES
//!   The output is a function of the numbers given: two runs, on any machines, give the same octets. About
//!   40 % of the people have non-ASCII names; some have aliases, some photos, most a manager; groups have from
//!   five members to a quarter of all.
//! LIMITS
//!   Memory takes some 60 octets for each person.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use crate::directory::attributes::Attributes;
use crate::directory::change::{Change, Modification, Operation};
use crate::directory::dn::{Dn, DnError, Rdn};
use crate::directory::ldif::Writer;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Directory {
    pub people: u32,
    pub seed: u64,
    /// Share of the people who have a photo of some 6 KiB, 0 to 1.
    pub photos: f64,
}

/// Changes to a directory that was made with the same numbers.
#[derive(Clone, Copy, Debug)]
pub struct Changes {
    pub count: u32,
    /// Beside modified attributes (70 %) also additions (10 %), deletions (8 %), renames (4 %) and members (8 %).
    pub mixed: bool,
    /// Distinguishes one file of changes from the next.
    pub base: u32,
}

impl Directory {
    /// Writes all entries at and beneath `context`, parents first, and returns their number.
    pub fn write_ldif(&self, context: &Dn, out: impl Write) -> io::Result<u64> {
        let names = Names::of(self);
        let mut writer = Counting { writer: Writer::new(out)?, written: 0 };
        writer.put(context, unit(context.rdn())?)?;
        for site in SITES {
            let site = child(context, "ou", site.0)?;
            writer.put(&site, unit(site.rdn())?)?;
            for kind in ["People", "Contacts", "Groups"] {
                let dn = child(&site, "ou", kind)?;
                writer.put(&dn, unit(dn.rdn())?)?;
            }
        }
        for i in 0..self.people {
            writer.put(&names.dn(context, i)?, self.person(context, &names, i)?)?;
        }
        for i in 0..self.people / 20 {
            let (dn, attributes) = self.contact(context, i)?;
            writer.put(&dn, attributes)?;
        }
        for group in self.groups() {
            writer.put(&group.dn(context)?, group.attributes(context, &names)?)?;
        }
        writer.writer.finish()?;
        Ok(writer.written)
    }

    /// Writes change records.
    pub fn write_changes(&self, context: &Dn, changes: Changes, out: impl Write) -> io::Result<()> {
        let names = Names::of(self);
        let mut writer = Writer::new(out)?;
        let mut random = Random::of(self.seed, "changes", u64::from(changes.base));
        // Whoever is renamed or deleted is touched once only.
        let order =
            random.sample(self.people, (u64::from(changes.count) * 2).min(u64::from(self.people)) as usize);
        let order = random.shuffled(order);
        let groups: Vec<Group> = self.groups().take((self.people / 100).max(1) as usize).collect();
        for k in 0..changes.count {
            let i = order[k as usize % order.len()];
            let dice = if changes.mixed { random.below(100) } else { 0 };
            let change = match dice {
                0..70 => self.modification(context, &names, i, k, &mut random)?,
                70..80 => newcomer(context, changes.base + k, &mut random)?,
                80..88 => {
                    let dn = names.dn(context, order[(changes.count + k) as usize % order.len()])?;
                    Change::Delete { dn }
                }
                88..92 => {
                    let new_rdn = Rdn::of("uid", &format!("{}-r{k}", names.local(i))).map_err(invalid)?;
                    Change::Rename {
                        dn: names.dn(context, i)?,
                        new_rdn,
                        delete_old_rdn: true,
                        new_superior: None,
                    }
                }
                _ => groups[k as usize % groups.len()].member(context, changes.base + k)?,
            };
            writer.change(&change)?;
        }
        writer.finish().map(drop)
    }

    fn person(&self, context: &Dn, names: &Names, i: u32) -> io::Result<Attributes> {
        let (given, surname, common) = full_name(self.seed, i);
        let mut r = Random::of(self.seed, "person", u64::from(i));
        let (site, city, code, country) = SITES[names.site(i)];
        let local = names.local(i);
        let mut a = Pairs::default();
        a.text("objectClass", "inetOrgPerson").text("uid", local);
        a.text("cn", &common).text("sn", &surname).text("givenName", &given);
        let display = if r.chance(15) { format!("{common} ({site})") } else { common.clone() };
        a.text("displayName", &display);
        let initials = given.split(' ').chain(surname.split(' ')).filter_map(|word| word.chars().next());
        a.text("initials", &initials.collect::<String>());
        a.text("mail", &format!("{local}@example.com"));
        let aliases = [
            format!("{local}@{}.example.com", site.to_ascii_lowercase().replace(' ', "")),
            format!("{}{i:05}@example.org", &local[..1]),
            format!("{local}@mail.example.net"),
        ];
        let count = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3][r.below(12) as usize];
        for alias in &aliases[..count] {
            a.text("mail", alias);
        }
        a.text("telephoneNumber", &r.telephone(code));
        if r.chance(60) {
            a.text("mobile", &r.telephone(code));
        }
        if r.chance(15) {
            a.text("facsimileTelephoneNumber", &r.telephone(code));
        }
        a.text("title", r.pick(TITLES)).text("ou", r.pick(DEPARTMENTS)).text("o", "Example Corporation");
        a.text("l", city).text("departmentNumber", &(1000 + r.below(400)).to_string());
        a.text("employeeNumber", &format!("{:06}", 100_000 + i));
        a.text(
            "employeeType",
            r.pick(&["Full-time", "Full-time", "Full-time", "Part-time", "Contractor", "Intern"]),
        );
        if r.chance(70) {
            a.text("roomNumber", &r.room());
        }
        if r.chance(50) {
            a.text("street", &format!("{} {}", 1 + r.below(300), r.pick(STREETS)));
            a.text("postalCode", &format!("{:05}", 1000 + r.below(99_000)));
        }
        if r.chance(30) {
            a.text("preferredLanguage", country);
        }
        if r.chance(20) {
            let reference = (r.next(), r.next());
            let department = r.pick(DEPARTMENTS);
            let year = 1994 + r.below(32);
            a.text(
                "description",
                &format!("{department}; joined {year}; reference {:016x}{:016x}", reference.0, reference.1),
            );
        }
        if i > 20 {
            a.text("manager", &names.dn(context, i / 8)?.to_string());
        }
        if (r.below(10_000) as f64) < self.photos * 10_000.0 {
            let mut photo = vec![0xff, 0xd8, 0xff, 0xe0];
            photo.extend((0..3000 + r.below(6000)).map(|_| r.next() as u8));
            a.octets("jpegPhoto", photo);
        }
        a.done()
    }

    fn contact(&self, context: &Dn, i: u32) -> io::Result<(Dn, Attributes)> {
        let (given, surname, _) = full_name(self.seed ^ 0x5eed, i);
        let mut r = Random::of(self.seed, "contact", u64::from(i));
        let company = r.pick(&["Fabrikam", "Contoso", "Northwind", "Tailspin", "Adatum", "Litware"]);
        let common = format!("{given} {surname} ({company} {i})");
        let site = child(context, "ou", r.site())?;
        let dn = child(&child(&site, "ou", "Contacts")?, "cn", &common)?;
        let mut a = Pairs::default();
        a.text("objectClass", "inetOrgPerson")
            .text("cn", &common)
            .text("sn", &surname)
            .text("givenName", &given);
        a.text("displayName", &common).text("o", company).text("employeeType", "Contact");
        let domain = company.to_ascii_lowercase();
        a.text("mail", &format!("{}.{}.{i}@{domain}.example", in_ascii(&given), in_ascii(&surname)));
        a.text("telephoneNumber", &r.telephone("1"));
        Ok((dn, a.done()?))
    }

    fn groups(&self) -> impl Iterator<Item = Group> {
        let Directory { people, seed, .. } = *self;
        let some = move |name: String, least: u32, most: u32| {
            let size = least + Random::of(seed, &name, 1).below(u64::from(most - least)) as u32;
            (name, size)
        };
        let small = (0..people / 100).map(move |k| some(format!("grp-{k:05}"), 5, 60));
        let medium = (0..20).map(move |k| some(format!("dept-{k:02}"), 200, 1000));
        let of_sites = SITES.iter().map(move |site| {
            (format!("all-{}", site.0.to_ascii_lowercase().replace(' ', "-")), (people / 10).min(10_000))
        });
        let all = std::iter::once(("all-staff".to_owned(), (people / 4).min(25_000)));
        small.chain(medium).chain(of_sites).chain(all).filter(move |_| people > 0).map(move |(name, size)| {
            let mut r = Random::of(seed, &name, 0);
            let site = r.site();
            Group { name, site, members: r.sample(people, size.clamp(1, people) as usize) }
        })
    }

    fn modification(
        &self,
        context: &Dn,
        names: &Names,
        i: u32,
        k: u32,
        r: &mut Random,
    ) -> io::Result<Change> {
        let (attribute, value) = match k % 4 {
            0 => ("telephoneNumber", r.telephone("99")),
            1 => ("title", format!("{} {}", r.pick(TITLES), 1 + r.below(9))),
            2 => ("roomNumber", r.room()),
            _ => ("mobile", r.telephone("99")),
        };
        let values = vec![value.into_bytes()];
        let replace = Modification { operation: Operation::Replace, attribute: attribute.into(), values };
        Ok(Change::Modify { dn: names.dn(context, i)?, modifications: vec![replace] })
    }
}

fn newcomer(context: &Dn, number: u32, r: &mut Random) -> io::Result<Change> {
    let uid = format!("newhire{number:06}");
    let people = child(&child(context, "ou", r.site())?, "ou", "People")?;
    let mut a = Pairs::default();
    a.text("objectClass", "inetOrgPerson").text("uid", &uid).text("cn", &format!("New Hire {number}"));
    a.text("sn", &format!("Hire {number}")).text("mail", &format!("{uid}@example.com"));
    a.text("telephoneNumber", &r.telephone("1"));
    Ok(Change::Add { dn: child(&people, "uid", &uid)?, uuid: None, attributes: a.done()? })
}

struct Group {
    name: String,
    site: &'static str,
    members: Vec<u32>,
}

impl Group {
    fn dn(&self, context: &Dn) -> io::Result<Dn> {
        child(&child(&child(context, "ou", self.site)?, "ou", "Groups")?, "cn", &self.name)
    }

    fn attributes(&self, context: &Dn, names: &Names) -> io::Result<Attributes> {
        let mut a = Pairs::default();
        a.text("objectClass", "groupOfNames").text("cn", &self.name);
        a.text("description", &format!("Distribution list {}", self.name));
        a.text("owner", &names.dn(context, self.members[0])?.to_string());
        for member in &self.members {
            a.text("member", &names.dn(context, *member)?.to_string());
        }
        a.done()
    }

    fn member(&self, context: &Dn, number: u32) -> io::Result<Change> {
        let people = child(&child(context, "ou", self.site)?, "ou", "People")?;
        let values = vec![child(&people, "uid", &format!("extra{number:06}"))?.to_string().into_bytes()];
        let add = Modification { operation: Operation::Add, attribute: "member".into(), values };
        Ok(Change::Modify { dn: self.dn(context)?, modifications: vec![add] })
    }
}

/// Mailbox name and site of everybody; others refer to them.
struct Names {
    people: Vec<(Box<str>, u8)>,
}

impl Names {
    fn of(directory: &Directory) -> Names {
        let mut used: HashMap<String, u32> = HashMap::new();
        let people = (0..directory.people).map(|i| {
            let (given, surname, _) = full_name(directory.seed, i);
            let base =
                format!("{}.{}", in_ascii(given.split(' ').next().unwrap_or(&given)), in_ascii(&surname));
            let count = used.entry(base.clone()).and_modify(|count| *count += 1).or_insert(1);
            let local = if *count == 1 { base } else { format!("{base}{count}") };
            // Most work at the first sites.
            let mut r = Random::of(directory.seed, "site", u64::from(i));
            let site = (0..7).find(|_| r.chance(40)).unwrap_or_else(|| r.below(8));
            (local.into_boxed_str(), site as u8)
        });
        Names { people: people.collect() }
    }

    fn local(&self, i: u32) -> &str {
        &self.people[i as usize].0
    }

    fn site(&self, i: u32) -> usize {
        usize::from(self.people[i as usize].1)
    }

    fn dn(&self, context: &Dn, i: u32) -> io::Result<Dn> {
        let people = child(&child(context, "ou", SITES[self.site(i)].0)?, "ou", "People")?;
        child(&people, "uid", self.local(i))
    }
}

/// Given name, surname, common name of person `i`.
fn full_name(seed: u64, i: u32) -> (String, String, String) {
    let mut r = Random::of(seed, "name", u64::from(i));
    let mut dice = r.below(100) as u32;
    let pool = POOLS.iter().find(|pool| {
        let here = dice < pool.weight;
        dice = dice.saturating_sub(pool.weight);
        here
    });
    let pool = pool.unwrap_or(&POOLS[0]);
    let mut given = r.pick(pool.given).to_owned();
    // Composed surnames keep names from repeating more than they do in life.
    let mut surname = if std::ptr::eq(pool, &POOLS[0]) && r.chance(55) {
        format!("{}{}", r.pick(SURNAME_HEADS), r.pick(SURNAME_TAILS))
    } else {
        r.pick(pool.surnames).to_owned()
    };
    if r.chance(12) {
        given = format!("{given} {}.", r.pick(&["A", "B", "E", "G", "H", "J", "K", "M", "R", "T"]));
    }
    if r.chance(5) {
        surname = format!("{surname}-{}", r.pick(pool.surnames));
    }
    let common = if pool.surname_first { format!("{surname} {given}") } else { format!("{given} {surname}") };
    (given, surname, common)
}

/// Attributes as they are gathered.
#[derive(Default)]
struct Pairs(Vec<(&'static str, Vec<u8>)>);

impl Pairs {
    fn text(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.octets(name, value.as_bytes().to_vec())
    }

    fn octets(&mut self, name: &'static str, value: Vec<u8>) -> &mut Self {
        self.0.push((name, value));
        self
    }

    fn done(self) -> io::Result<Attributes> {
        Attributes::from_pairs(self.0).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

struct Counting<W> {
    writer: Writer<W>,
    written: u64,
}

impl<W: Write> Counting<W> {
    fn put(&mut self, dn: &Dn, attributes: Attributes) -> io::Result<()> {
        self.written += 1;
        self.writer.entry(dn, None, &attributes)
    }
}

fn unit(rdn: &Rdn) -> io::Result<Attributes> {
    let mut pairs = rdn.pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Vec<_>>();
    let class = match pairs.first().map(|(name, _)| name.to_ascii_lowercase()).as_deref() {
        Some("o") => "organization",
        Some("dc") => "domain",
        _ => "organizationalUnit",
    };
    pairs.push(("objectClass".into(), class.into()));
    Attributes::from_pairs(pairs).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn child(above: &Dn, attribute: &str, value: &str) -> io::Result<Dn> {
    Rdn::of(attribute, value).and_then(|rdn| above.child(rdn)).map_err(invalid)
}

fn invalid(error: DnError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// A name as it stands in an address.
fn in_ascii(name: &str) -> String {
    let mut ascii = String::with_capacity(name.len());
    for c in name.chars().flat_map(char::to_lowercase) {
        match TRANSLITERATION.iter().find(|(from, _)| from.contains(c)) {
            _ if c.is_ascii_alphanumeric() || c == '-' => ascii.push(c),
            Some((_, to)) => ascii.push_str(to),
            None => {}
        }
    }
    if !ascii.bytes().any(|b| b.is_ascii_alphanumeric()) {
        let sum = name.chars().fold(7u32, |sum, c| sum.wrapping_mul(31).wrapping_add(c as u32));
        ascii = format!("u{:04x}", sum & 0xffff);
    }
    ascii
}

/// SplitMix64 (Steele, Lea, Flood 2014), begun anew for each thing that is made.
struct Random(u64);

impl Random {
    fn of(seed: u64, kind: &str, index: u64) -> Random {
        let kind = kind
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let mut random = Random(seed ^ kind.rotate_left(17));
        random.0 = random.next() ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `bound` - 1, near enough evenly.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len() as u64) as usize]
    }

    fn site(&mut self) -> &'static str {
        SITES[self.below(SITES.len() as u64) as usize].0
    }

    /// `size` different numbers below `bound`, ascending.
    fn sample(&mut self, bound: u32, size: usize) -> Vec<u32> {
        let mut chosen = BTreeSet::new();
        // Robert Floyd's: one number for each that is chosen.
        for limit in bound - (size as u32).min(bound)..bound {
            let candidate = self.below(u64::from(limit) + 1) as u32;
            if !chosen.insert(candidate) {
                chosen.insert(limit);
            }
        }
        chosen.into_iter().collect()
    }

    fn shuffled(&mut self, mut list: Vec<u32>) -> Vec<u32> {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
        list
    }

    fn telephone(&mut self, code: &str) -> String {
        format!("+{code} {} {:03} {:04}", 10 + self.below(90), self.below(1000), self.below(10_000))
    }

    fn room(&mut self) -> String {
        format!("{}{}.{:02}", self.pick(&["A", "B", "C", "D"]), self.below(10), 1 + self.below(60))
    }
}

/// Names of one language.
struct Pool {
    /// Percent of the people.
    weight: u32,
    given: &'static [&'static str],
    surnames: &'static [&'static str],
    surname_first: bool,
}

/// Name in DNs, name in addresses, telephone code, language.
type Site = (&'static str, &'static str, &'static str, &'static str);

const SITES: [Site; 8] = [
    ("Paris", "Paris", "33", "fr"),
    ("Berlin", "Berlin", "49", "de"),
    ("Krakow", "Kraków", "48", "pl"),
    ("Lisboa", "Lisboa", "351", "pt"),
    ("Osaka", "大阪", "81", "ja"),
    ("Austin", "Austin", "1", "en"),
    ("Nairobi", "Nairobi", "254", "sw"),
    ("Sao Paulo", "São Paulo", "55", "pt"),
];

#[rustfmt::skip]
const POOLS: [Pool; 9] = [
    Pool { weight: 60, surname_first: false,
        given: &["James", "Mary", "Robert", "Patricia", "John", "Jennifer", "Michael", "Linda", "David", "Elizabeth", "William", "Barbara",
            "Richard", "Susan", "Joseph", "Jessica", "Thomas", "Sarah", "Charles", "Karen", "Daniel", "Nancy", "Matthew", "Lisa", "Anthony",
            "Betty", "Mark", "Margaret", "Donald", "Sandra", "Steven", "Ashley", "Paul", "Kimberly", "Andrew", "Emily", "Joshua", "Donna",
            "Anna", "Marco", "Laura", "Pieter", "Ingrid", "Ahmed", "Fatima", "Wanjiru", "Kamau", "Priya", "Rahul"],
        surnames: &["Smith", "Johnson", "Williams", "Brown", "Jones", "Garcia", "Miller", "Davis", "Rodriguez", "Martinez", "Wilson", "Anderson",
            "Taylor", "Moore", "Jackson", "Lee", "Perez", "Thompson", "White", "Harris", "Clark", "Lewis", "Robinson", "Walker", "Young",
            "King", "Wright", "Scott", "Nguyen", "Hill", "Green", "Adams", "Baker", "Campbell", "Otieno", "Mwangi", "Patel", "Sharma",
            "Rossi", "Ferrari", "De Vries", "Van den Berg", "Jansen", "Kowalski", "Novak", "Schmidt", "Fischer", "Weber", "O'Brien"] },
    Pool { weight: 10, surname_first: false,
        given: &["François", "Chloé", "Zoé", "Hélène", "René", "Noémie", "Jérôme", "Aurélie", "Benoît", "Céline", "Gaël", "Léa", "Maïté", "Loïc"],
        surnames: &["Lefèvre", "Béranger", "Gérard", "Noël", "Hébert", "Léger", "Bénard", "Dupré", "Chrétien", "Guérin", "D'Aramitz", "Côté"] },
    Pool { weight: 8, surname_first: false,
        given: &["Jürgen", "Günther", "Björn", "Sören", "Käthe", "Jörg", "Ümit", "Bärbel", "Göran", "Åsa", "Håkan", "Øyvind", "Mårten", "Dörte"],
        surnames: &["Müller", "Schäfer", "König", "Böhm", "Jäger", "Größer", "Weiß", "Krämer", "Köhler", "Schröder", "Sjöberg", "Åkesson", "Þórsson"] },
    Pool { weight: 7, surname_first: false,
        given: &["Łukasz", "Małgorzata", "Michał", "Stanisław", "Paweł", "Żaneta", "Jiří", "Zdeněk", "Šárka", "Václav", "Željko", "Đorđe", "Ágnes"],
        surnames: &["Wiśniewski", "Dąbrowski", "Zieliński", "Woźniak", "Kozłowski", "Wójcik", "Dvořák", "Černý", "Kučera", "Kovačević", "Szűcs"] },
    Pool { weight: 5, surname_first: false,
        given: &["João", "José", "Inês", "Conceição", "Adrián", "Íñigo", "Begoña", "Núria", "Sebastião", "Débora", "Vinícius", "Mônica"],
        surnames: &["Gonçalves", "Araújo", "Muñoz", "Peña", "Ibáñez", "Guimarães", "Falcão", "Simões", "Magalhães", "Núñez", "Sá e Melo"] },
    Pool { weight: 4, surname_first: true,
        given: &["太郎", "花子", "健一", "美咲", "大輔", "陽子", "翔太", "由美"],
        surnames: &["佐藤", "鈴木", "高橋", "田中", "渡辺", "伊藤", "山本", "中村", "小林", "加藤"] },
    Pool { weight: 3, surname_first: false,
        given: &["Иван", "Мария", "Дмитрий", "Ольга", "Сергей", "Наталья", "Алексей", "Елена"],
        surnames: &["Иванов", "Петрова", "Сидоров", "Кузнецов", "Смирнов", "Попова", "Волков", "Соколова"] },
    Pool { weight: 2, surname_first: false,
        given: &["Γιώργος", "Μαρία", "Δημήτρης", "Ελένη", "Κώστας", "Σοφία"],
        surnames: &["Παπαδόπουλος", "Νικολάου", "Γεωργίου", "Οικονόμου", "Βασιλείου"] },
    Pool { weight: 1, surname_first: false,
        given: &["محمد", "فاطمة", "أحمد", "عائشة"],
        surnames: &["الحسن", "العلي", "الخطيب", "النجار"] },
];

#[rustfmt::skip]
const SURNAME_HEADS: &[&str] = &["Hart", "Black", "Ash", "Win", "Brook", "Holl", "Kings", "Lang", "Mere", "Nor", "Oak", "Pen", "Rad", "Stan", "Thorn",
    "Under", "Wal", "Whit", "Wood", "Bar", "Cal", "Dun", "El", "Far", "Hal", "Ing", "Kil", "Lind", "Mar", "Red", "Sil", "Tor", "Ver", "Wes", "Cran"];
#[rustfmt::skip]
const SURNAME_TAILS: &[&str] = &["well", "wood", "ford", "ton", "field", "ley", "worth", "by", "stead", "bury", "more", "man", "hurst", "ridge", "land",
    "son", "ham", "mont", "vale", "ster", "win", "ling", "gate", "shaw", "stone", "marsh", "dale", "berg", "kins", "wick", "croft", "combe"];
#[rustfmt::skip]
const TITLES: &[&str] = &["Software Engineer", "Senior Engineer", "Account Manager", "Sales Representative", "Office Manager", "Financial Analyst",
    "Team Lead", "Director of Operations", "Ingénieur d'études", "Sachbearbeiterin für Beschaffung", "HR Business Partner", "Support Technician",
    "Product Manager", "Legal Counsel", "Warehouse Operator", "Vice President, Marketing", "Research Scientist", "Nurse", "Lecturer", "Consultant"];
#[rustfmt::skip]
const DEPARTMENTS: &[&str] = &["Engineering", "Sales", "Finance", "Human Resources", "Legal", "Operations", "Marketing", "Research", "Support",
    "Forschung & Entwicklung", "Achats", "Logistics"];
#[rustfmt::skip]
const STREETS: &[&str] = &["Main Street", "Rue de la République", "Königsallee", "ul. Długa", "Avenida da Liberdade", "Moi Avenue", "Congress Avenue",
    "Rua Augusta", "本町"];
#[rustfmt::skip]
const TRANSLITERATION: &[(&str, &str)] = &[("àáâãåąă", "a"), ("ä", "ae"), ("çćč", "c"), ("ďđ", "d"), ("èéêëěę", "e"), ("ìíîï", "i"), ("łľ", "l"),
    ("ñńň", "n"), ("òóôõőø", "o"), ("ö", "oe"), ("řŕ", "r"), ("śšş", "s"), ("ß", "ss"), ("ťţ", "t"), ("ùúûůű", "u"), ("ü", "ue"), ("ýÿ", "y"),
    ("źżž", "z"), ("þ", "th"), ("æ", "ae")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::context::{context_by_number, create_context};
    use crate::directory::import::import;
    use crate::directory::lookup::scan_entries;
    use crate::directory::memory::MemoryStore;
    use sha2::Digest as _;

    const SMALL: Directory = Directory { people: 500, seed: 1, photos: 0.1 };

    fn ldif(directory: Directory) -> Vec<u8> {
        let mut out = Vec::new();
        directory.write_ldif(&Dn::parse("ou=alpha,o=Org").unwrap(), &mut out).unwrap();
        out
    }

    fn changes(base: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let changes = Changes { count: 200, mixed: true, base };
        SMALL.write_changes(&Dn::parse("ou=alpha,o=Org").unwrap(), changes, &mut out).unwrap();
        out
    }

    #[test]
    fn the_same_numbers_give_the_same_octets_for_ever() {
        let sum: String =
            sha2::Sha256::digest(ldif(SMALL)).iter().take(8).map(|b| format!("{b:02x}")).collect();
        assert_eq!(sum, "6459420a21a3a593");
        assert_ne!(ldif(SMALL), ldif(Directory { seed: 2, ..SMALL }));
        assert_ne!(changes(0), changes(1));
    }

    #[test]
    fn it_can_be_imported_and_changed() {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        create_context(&mut tx, &Dn::parse("ou=alpha,o=Org").unwrap(), "alpha", uuid::Uuid::from_u128(1))
            .unwrap();
        let done = import(&mut tx, 1, [1; 12], &ldif(SMALL)[..], &|_| true, &mut |_| {}).unwrap();
        // 33 units, 500 people, 25 contacts, 5 + 20 + 8 + 1 groups.
        assert_eq!((done.records, done.committed.unwrap().entries), (592, 592));
        let done = import(&mut tx, 1, [2; 12], &changes(0)[..], &|_| true, &mut |_| {}).unwrap();
        assert_eq!(done.records, 200);
        let (mut people, mut photos, mut foreign, mut aliases, mut most) = (0, 0, 0, 0, 0);
        scan_entries(&tx, 1, &mut |entry| {
            let a = &entry.attributes;
            people += usize::from(a.attribute("employeeNumber").is_some());
            photos += usize::from(a.attribute("jpegPhoto").is_some());
            foreign += usize::from(a.text("cn").is_some_and(|name| !name.is_ascii()));
            aliases += usize::from(a.values("mail").len() > 1);
            most = most.max(a.values("member").len());
            true
        })
        .unwrap();
        assert!(
            people > 450 && (20..80).contains(&photos) && (100..300).contains(&foreign),
            "{people} {photos} {foreign}"
        );
        assert!((150..350).contains(&aliases) && most >= 500, "{aliases} {most}");
        assert!(context_by_number(&tx, 1).unwrap().unwrap().entries > 500);
    }
}
