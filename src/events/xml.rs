//! XML documents in memory, written by quick-xml.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// A document that is being written. Attributes and texts are escaped.
pub struct XmlPage(Writer<Vec<u8>>);

/// The attributes of an element: names and values.
pub type XmlAttributes<'a> = &'a [(&'a str, &'a str)];

impl XmlPage {
    /// A document with its XML declaration.
    pub fn new() -> XmlPage {
        let mut page = XmlPage::fragment();
        page.put(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        page
    }

    /// A document without an XML declaration.
    pub fn fragment() -> XmlPage {
        XmlPage(Writer::new_with_indent(Vec::new(), b' ', 2))
    }

    fn put(&mut self, event: Event<'_>) {
        self.0.write_event(event).expect("a Vec takes everything");
    }

    fn start<'a>(name: &'a str, attributes: XmlAttributes<'a>) -> BytesStart<'a> {
        BytesStart::new(name).with_attributes(attributes.iter().copied())
    }

    /// An element without content.
    pub fn empty(&mut self, name: &str, attributes: XmlAttributes<'_>) {
        self.put(Event::Empty(Self::start(name, attributes)));
    }

    /// An element with a text.
    pub fn text(&mut self, name: &str, attributes: XmlAttributes<'_>, text: &str) {
        self.put(Event::Start(Self::start(name, attributes)));
        self.put(Event::Text(BytesText::new(text)));
        self.put(Event::End(BytesEnd::new(name)));
    }

    /// An element whose content `inner` writes.
    pub fn element(&mut self, name: &str, attributes: XmlAttributes<'_>, inner: impl FnOnce(&mut XmlPage)) {
        self.put(Event::Start(Self::start(name, attributes)));
        inner(self);
        self.put(Event::End(BytesEnd::new(name)));
    }

    /// The whole document, with a line break at its end.
    pub fn finish(self) -> String {
        let text = String::from_utf8(self.0.into_inner()).expect("all parts are UTF-8");
        text + "\n"
    }
}

impl Default for XmlPage {
    fn default() -> XmlPage {
        XmlPage::new()
    }
}
