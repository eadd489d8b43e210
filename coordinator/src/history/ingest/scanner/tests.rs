//! Pieces of XML, good and bad.

use super::*;

fn all(document: &[u8]) -> (Vec<Token>, Option<String>, u64) {
    let mut scanner = Scanner::new(document).unwrap();
    let mut tokens = Vec::new();
    loop {
        match scanner.next() {
            Ok(Some(token)) => tokens.push(token),
            Ok(None) => return (tokens, None, scanner.line()),
            Err(error) => return (tokens, Some(error.to_string()), scanner.line()),
        }
    }
}

fn text(document: &[u8]) -> String {
    all(document)
        .0
        .into_iter()
        .filter_map(|token| match token {
            Token::Text(text) => Some(text),
            Token::Open(_) | Token::Close(_) => None,
        })
        .collect()
}

#[test]
fn references_are_resolved_and_nothing_is_defined() {
    assert_eq!(text(b"<a>1 &lt; 2 &#65;&amp;</a>"), "1 < 2 A&");
    assert_eq!(text(b"<a><![CDATA[x ]] <b> ]]]></a>"), "x ]] <b> ]");
    let bomb = b"<!DOCTYPE a [<!ENTITY b \"<>><\"><!ENTITY c \"&b;&b;\">]><a>&c;&c;</a>";
    assert_eq!(text(bomb), "&c;&c;");
    assert_eq!(text(b"<a><!-- <b> --><?x <c> ?>t</a>"), "t");
    assert_eq!(text(b"<a><!--- - -> -- > b--->1<?x ? > ??>2<!---->3</a>"), "123");
}

#[test]
fn encodings_are_what_the_bytes_say() {
    let utf16 = |big: bool| {
        let units = "\u{feff}<?xml encoding=\"utf-16\"?><a>ü🦀\n</a>".encode_utf16();
        units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect::<Vec<u8>>()
    };
    for document in [utf16(true), utf16(false)] {
        let (tokens, error, line) = all(&document);
        assert_eq!((tokens.len(), error, line), (3, None, 2));
        assert_eq!(text(&document).trim(), "ü🦀");
    }
    assert_eq!(text(b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xfc</a>"), "ü");
    assert_eq!(text(b"\xef\xbb\xbf<?xml encoding='utf-16'?><a>\xc3\xbc\xff</a>"), "ü\u{fffd}");
}

#[test]
fn pieces_are_bounded_however_long_they_are() {
    let mega = "x".repeat(3 << 20);
    assert_eq!(text(format!("<a>{mega}</a>").as_bytes()).len(), LONGEST_TEXT);
    assert_eq!(text(format!("<a><![CDATA[{mega}]]></a>").as_bytes()).len(), LONGEST_TEXT);
    let brackets = "]".repeat(3 << 20);
    assert_eq!(text(format!("<a><![CDATA[{brackets}]]></a>").as_bytes()).len(), LONGEST_TEXT);
    let empty = "<b/><!-- -->".repeat(MOST_PIECES as usize / 2);
    let (tokens, error, _) = all(format!("<a>{empty}</a>").as_bytes());
    assert_eq!(tokens.len() as u32, 1 + MOST_PIECES / 2);
    assert!(error.unwrap().contains("without a test case"));
    let (tokens, error, _) = all(format!("<a m=\"{mega}ü\" n='1'/>").as_bytes());
    let [Token::Open(element)] = &tokens[..] else { panic!("one element: {error:?}") };
    assert_eq!((element.attribute("m").len(), element.attribute("n")), (LONGEST_VALUE, "1"));
    let endless = format!("<a {mega}");
    assert!(all(endless.as_bytes()).1.unwrap().contains("a tag of more than"));
    let many: String = (0..300).map(|n| format!(" a{n}='1'")).collect();
    assert!(all(format!("<a{many}/>").as_bytes()).1.unwrap().contains("attributes"));
}

#[test]
fn damage_is_named_with_its_line() {
    for (document, what) in [
        (&b"<a>\n<b x='1"[..], "within a tag"),
        (b"<a>\n<![CDATA[x", "within a CDATA section"),
        (b"<a>\n<!-- x", "within a comment"),
        (b"<a>\n< b>", "begins no tag"),
        (b"<a>\n<b <c>", "a tag within a tag"),
        (b"<a>\n<!DOCTYPE [", "within a document type"),
    ] {
        let (tokens, error, line) = all(document);
        assert_eq!((tokens.len(), line), (1, 2), "{what}");
        assert!(error.as_ref().unwrap().contains(what), "{error:?}");
    }
    assert_eq!(all(b"just text").1, None);
}

#[test]
fn prefixes_and_odd_attributes_are_taken_as_they_are() {
    let (tokens, ..) = all(b"<ns:a x:b='1' c=\"&broken;\" d = '2' e/></ns:a >");
    let Token::Open(element) = &tokens[0] else { panic!("an element") };
    assert_eq!((element.name.as_str(), element.empty), ("a", true));
    assert_eq!(
        (element.attribute("b"), element.attribute("c"), element.attribute("d")),
        ("1", "&broken;", "2")
    );
    assert_eq!(tokens[1], Token::Close("a".to_owned()));
}
