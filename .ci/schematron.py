"""Runs the official schematron of EN 16931 and Peppol BIS Billing 3 with Saxon.

Usage: schematron.py DATA DOCUMENTS, where DATA is the folder that KIKI_CONFORMANCE_DATA names and DOCUMENTS
holds the XML that our tests wrote.

Schematron needs XSLT 2. A .sch file is turned into a stylesheet here, as the ISO skeleton does: a pattern is
a mode, a rule is a template, and the first rule of a pattern that matches a node is the only one that fires.
That this is done right is shown by the authorities' own unit tests and examples, before ours are looked at.
"""

import pathlib
import sys
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

from saxonche import PySaxonProcessor

SCH = "{http://purl.oclc.org/dsdl/schematron}"
XSL = "{http://www.w3.org/1999/XSL/Transform}"
TEST_SET = "{http://difi.no/xsd/vefa/validator/1.0}"
UBL = "{urn:oasis:names:specification:ubl:schema:xsd:"

# How many unit tests and examples there are at least: a driver that finds none would agree with all of them.
UNIT_TESTS_MIN, EXAMPLES_MIN = 1300, 43


def text_of(node):
    """The words of an assertion, on one line; values that it would insert are left out."""
    return " ".join("".join(node.itertext()).split())


def stylesheet(path):
    """The XSLT that reports each failed assertion of a .sch file as a line: flag, id, text."""
    root = ET.parse(path).getroot()
    out = [f'<xsl:stylesheet version="3.0" xmlns:xsl="{XSL[1:-1]}"']
    out += [f" xmlns:{ns.get('prefix')}={quoteattr(ns.get('uri'))}" for ns in root.findall(SCH + "ns")]
    out.append('><xsl:output method="text"/>')
    for function in root.iter(XSL + "function"):
        ET.register_namespace("xsl", XSL[1:-1])
        out.append(ET.tostring(function, encoding="unicode"))
    lets = root.findall(SCH + "let") + [let for p in root.findall(SCH + "pattern") for let in p.findall(SCH + "let")]
    out += [variable(let) for let in lets]
    modes = []
    for number, pattern in enumerate(root.findall(SCH + "pattern")):
        mode = f"m{number}"
        modes.append(f'<xsl:apply-templates select="/" mode="{mode}"/>')
        rules = pattern.findall(SCH + "rule")
        for place, rule in enumerate(rules):
            out.append(template(rule, mode, len(rules) - place))
        out.append(f'<xsl:template match="@*|node()|/" mode="{mode}" priority="-1"><xsl:apply-templates select="@*|node()" mode="{mode}"/></xsl:template>')
    out.append(f'<xsl:template match="/">{"".join(modes)}</xsl:template></xsl:stylesheet>')
    return "".join(out)


def variable(let):
    return f"<xsl:variable name={quoteattr(let.get('name'))} select={quoteattr(let.get('value'))}/>"


def template(rule, mode, priority):
    out = [f'<xsl:template match={quoteattr(rule.get("context"))} mode="{mode}" priority="{priority}">']
    out += [variable(let) for let in rule.findall(SCH + "let")]
    for check in rule.findall(SCH + "assert"):
        flag = check.get("flag") or check.get("role") or "fatal"
        line = f"{flag}\t{check.get('id')}\t{text_of(check)}"
        out.append(f"<xsl:if test={quoteattr('not(' + check.get('test') + ')')}><xsl:text>{escape(line)}&#10;</xsl:text></xsl:if>")
    if rule.findall(SCH + "report"):
        raise SystemExit("a rule reports, which this does not know")
    out.append(f'<xsl:apply-templates select="@*|node()" mode="{mode}"/></xsl:template>')
    return "".join(out)


class Rules:
    """One compiled .sch file."""

    def __init__(self, saxon, path):
        self.saxon, self.name = saxon, path.name
        self.compiled = saxon.new_xslt30_processor().compile_stylesheet(stylesheet_text=stylesheet(path))

    def failed(self, xml):
        """Ids and texts of the fatal assertions that a document fails, and of the warnings."""
        said = self.compiled.transform_to_string(xdm_node=self.saxon.parse_xml(xml_text=xml)) or ""
        lines = [line.split("\t", 2) for line in said.splitlines() if line.strip()]
        return [line[1:] for line in lines if line[0] in ("fatal", "error")], [line[1:] for line in lines if line[0] == "warning"]


def documents(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".xml")


def read(path):
    return path.read_text(encoding="utf-8-sig")


def unit_tests(rules, folder):
    """Each test of a test set names a rule that its fragment keeps or breaks. Returns how many agreed, and who did not."""
    agreed, others = 0, []
    for path in documents(folder):
        for place, test in enumerate(ET.parse(path).getroot().findall(TEST_SET + "test")):
            expected = test.find(TEST_SET + "assert")
            fragment = next((child for child in test if child.tag.startswith(UBL)), None)
            if expected is None or fragment is None:
                continue
            fatal, warnings = rules.failed(ET.tostring(fragment, encoding="unicode"))
            failed = {id for id, _ in fatal + warnings}
            for said in expected:
                rule = (said.text or "").strip()
                broken = said.tag in (TEST_SET + "error", TEST_SET + "warning")
                if said.tag not in (TEST_SET + "success", TEST_SET + "error", TEST_SET + "warning") or not rule:
                    continue
                if (rule in failed) == broken:
                    agreed += 1
                else:
                    others.append(f"{path.name} test {place + 1}: {rule} {'held' if broken else 'did not hold'}")
    return agreed, others


def all_pass(rules, paths, what):
    """Checks that documents pass, prints what does not, and says whether all did."""
    bad = 0
    for path in paths:
        fatal, _ = rules.failed(read(path))
        for rule, text in fatal:
            print(f"  {path.name}: {rule}: {text}")
        bad += bool(fatal)
    print(f"{rules.name}: {len(paths)} {what}, {bad} fail")
    return not bad


def broken_fails(rules, paths):
    """Whether documents of ours in a currency that there is not, or without their number, are refused."""
    good = True
    for path in paths[:5]:
        xml = read(path)
        for what, wrong in [("currency", xml.replace("EUR", "ZZZ")), ("number", xml.replace(">K2026-000001<", "><"))]:
            if wrong == xml or not rules.failed(wrong)[0]:
                print(f"  {rules.name}: {path.name} passes with a wrong {what}")
                good = False
    return good


def main():
    data, ours = pathlib.Path(sys.argv[1]) / "billing", pathlib.Path(sys.argv[2])
    en, peppol = data / "en16931", data / "peppol"
    good, agreements = True, 0
    with PySaxonProcessor(license=False) as saxon:
        ubl = Rules(saxon, en / "schematron/EN16931-UBL-validation-preprocessed.sch")
        cii = Rules(saxon, en / "schematron/EN16931-CII-validation-preprocessed.sch")
        bis = Rules(saxon, peppol / "PEPPOL-EN16931-UBL.sch")
        for rules, folder in [(ubl, en / "Invoice-unit-UBL"), (ubl, en / "CreditNote-unit-UBL"), (bis, peppol / "unit-UBL-PEPPOL")]:
            agreed, others = unit_tests(rules, folder)
            print(f"{rules.name}: {agreed} unit tests of {folder.name} agree, {len(others)} do not", *others, sep="\n  ")
            agreements += agreed
            good &= not others
        ubl_examples, cii_examples = documents(en / "ubl-examples"), documents(en / "cii-examples")
        peppol_examples = documents(peppol / "examples")
        good &= all_pass(ubl, ubl_examples + peppol_examples, "official examples")
        good &= all_pass(bis, peppol_examples, "official examples")
        good &= all_pass(cii, cii_examples, "official examples")
        examples = len(ubl_examples + peppol_examples + cii_examples)
        if agreements < UNIT_TESTS_MIN or examples < EXAMPLES_MIN:
            raise SystemExit(f"only {agreements} unit tests and {examples} examples found")
        mine = {end: [path for path in documents(ours) if path.name.endswith(end)] for end in ("ubl.xml", "peppol-ubl.xml", "cii.xml")}
        for rules, end in [(ubl, "ubl.xml"), (bis, "peppol-ubl.xml"), (cii, "cii.xml")]:
            if not mine[end]:
                raise SystemExit(f"no document of ours ends in {end}")
            good &= all_pass(rules, mine[end], "documents of ours")
            good &= broken_fails(rules, mine[end])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
