// What acts in documents. The decoders of documents give an engine what they found as a small text whose declared type
// begins with text/x-icapscan-active-content and lists its kinds (README.md): these rules read the type. So no string is
// searched for in every body, and no trick of writing hides from a rule what the decoder has read.

private rule Active_Content
{
    condition:
        filetype startswith "text/x-icapscan-active-content+"
}

rule Macro_Starts_Program : macro
{
    meta:
        description = "VBA macros that run by themselves and start a program, load a file or make an object of hidden name"
        severity = "high"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1059/005/"
        false_positives = "Office automation inside a company: templates that start a helper when a document is opened"
    condition:
        Active_Content and
        filetype contains "+vba-auto-run" and filetype contains "+vba-starts-program"
}

rule Standard_Password : encryption
{
    meta:
        description = "A document encrypted with the password that Office tries by itself, which hides it from scanners only"
        severity = "low"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1027/"
        false_positives = "Workbooks up to Excel 2003 whose structure is protected"
    condition:
        Active_Content and filetype contains "+standard-password"
}

rule Excel4_Macro : macro
{
    meta:
        description = "A workbook with a macro sheet of Excel 4.0 (XLM)"
        severity = "high"
        verdict = "suspicious"
        reference = "https://support.microsoft.com/office/working-with-excel-4-0-macros-ba8924d4-e157-4bb2-8d76-2c07ff02e0b8"
        false_positives = "Workbooks from the nineties, and add-ins that still use macro sheets"
    condition:
        Active_Content and filetype contains "+xlm-macro"
}

rule DDE_Link : dde
{
    meta:
        description = "A document that starts or asks a program by DDE"
        severity = "high"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1559/002/"
        false_positives = "Spreadsheets that get prices from a trading program by DDE"
    condition:
        Active_Content and filetype contains "+dde"
}

rule Equation_Object : exploit
{
    meta:
        description = "A document with an object of the equation editor, whose flaws run programs (CVE-2017-11882)"
        severity = "high"
        verdict = "suspicious"
        reference = "https://nvd.nist.gov/vuln/detail/CVE-2017-11882"
        false_positives = "Papers with formulas from before 2018, when the equation editor was withdrawn"
    condition:
        Active_Content and filetype contains "+equation-object"
}

rule Remote_Template : remote
{
    meta:
        description = "A document whose template is loaded over the net, or an object of it by a script or MHTML moniker"
        severity = "high"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1221/"
        false_positives = "Templates on a file server of the sender's company"
    condition:
        Active_Content and
        (
            filetype contains "+remote-template" or filetype contains "+external-moniker" or
            filetype contains "+script-moniker"
        )
}

rule PDF_Launch : launch
{
    meta:
        description = "A PDF file with an action that starts a program or opens a file"
        severity = "high"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1204/002/"
        false_positives = "Tables of contents on CD-ROMs, which open the documents beside them"
    condition:
        Active_Content and filetype contains "+pdf-launch"
}

rule PDF_JavaScript_Acts : script
{
    meta:
        description = "A PDF file with a script that exports or loads files, or hides what it is"
        severity = "medium"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1059/007/"
        false_positives = "Forms that attach a file to themselves. Scripts that only reckon are no match: see the anomaly pdf-javascript"
    condition:
        Active_Content and filetype contains "+pdf-javascript-acts"
}

rule OneNote_Program : embedded
{
    meta:
        description = "A OneNote section with a program, shortcut, page or script in it"
        severity = "high"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1566/001/"
        false_positives = "Notebooks in which somebody collects programs or saved pages"
    condition:
        Active_Content and filetype contains "+onenote-program"
}

rule Symbolic_Link_Macro : macro
{
    meta:
        description = "A SYLK spreadsheet with a macro that runs by itself or starts a program"
        severity = "high"
        verdict = "suspicious"
        reference = "https://outflank.nl/blog/2019/10/30/abusing-the-sylk-file-format/"
        false_positives = "None known; spreadsheets in SYLK have had no macros for thirty years"
    strings:
        $auto = ";NAuto_"
        $auto_upper = ";NAUTO_"
        $auto_lower = ";Nauto_"
        $exec = ";EEXEC("
    condition:
        uint32(0) == 0x503B4449 and any of them // ID;P
}

rule DDE_Formula_In_Text : dde
{
    meta:
        description = "A table as text with a formula that starts a program by DDE"
        severity = "high"
        verdict = "suspicious"
        reference = "https://owasp.org/www-community/attacks/CSV_Injection"
        false_positives = "Texts that explain the attack"
    strings:
        $pipe = { 7C 27 (20 | 2F | 2D) } // |'/ behind the name of the program
    condition:
        filesize < 16MB and
        for any i in (1..#pipe) : (
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x3D636D64 or             // =cmd
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x2B636D64 or             // +cmd
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x2D636D64 or             // -cmd
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x60636D64 or             // @cmd
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x2E657865 or             // .exe
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x68656C6C or             // powershell
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x73687461 or             // mshta
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x6C6C3332 or             // rundll32
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x76723332 or             // regsvr32
            uint32be(@pipe[i] - 4) | 0x20202020 == 0x7863656C                // msexcel
        )
}
