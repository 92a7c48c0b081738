//! Any bytes as an append only file and as its manifest: what is read ends where the records say it does, and a
//! manifest that is read is written as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spinel::persist::aof::manifest::Manifest;
use spinel::persist::aof::records::Records;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes)
        && manifest != Manifest::default()
    {
        assert_eq!(Manifest::parse(&manifest.text()), Ok(manifest));
    }
    let mut source = bytes;
    let mut records = Records::new(&mut source, Vec::new(), 0);
    let mut before = 0;
    loop {
        let (mut text, mut spans) = (Vec::new(), Vec::new());
        let record = records.next(&mut text, &mut spans);
        let whole = records.whole();
        assert!(whole >= before && whole <= bytes.len() as u64);
        before = whole;
        match record {
            Ok(Some(_)) => spans.iter().for_each(|span| assert!(span.of(&text).len() <= text.len())),
            Ok(None) => {
                assert_eq!(whole, bytes.len() as u64);
                break;
            }
            Err(fault) => {
                assert_eq!(fault.whole, whole);
                break;
            }
        }
    }
});
