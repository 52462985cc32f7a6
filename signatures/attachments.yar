// Kinds of files that start programs by a double click and have no business in a mail or on a web page.

rule Shortcut_File : shortcut
{
    meta:
        description = "A Windows shortcut (LNK)"
        severity = "medium"
        verdict = "suspicious"
        reference = "https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-shllink/"
        false_positives = "Shortcuts in backups and in the zip of a portable program"
    condition:
        uint32(0) == 0x0000004C and uint32(4) == 0x00021401 and uint32(8) == 0 and uint32(12) == 0x000000C0
}

rule HTML_Application : script
{
    meta:
        description = "An HTML application (HTA): a page that runs with the rights of a program"
        severity = "high"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1218/005/"
        false_positives = "Tools of administrators; texts that explain HTA and hold the tag with its angle bracket"
    strings:
        $tag = ":application" nocase // behind <hta
    condition:
        extension == ".hta" or for any i in (1..#tag) : (uint32be(@tag[i] - 4) | 0x00202020 == 0x3C687461)
}

rule Script_Host_File : script
{
    meta:
        description = "A Windows script file (WSF, WSH)"
        severity = "medium"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1059/005/"
        false_positives = "Scripts of administrators"
    condition:
        extension == ".wsf" or extension == ".wsh" or
        (
            uint32be(0) | 0x00202020 == 0x3C6A6F62 and // <job
            (uint8(4) == 0x3E or uint8(4) == 0x20 or uint8(4) == 0x09 or uint8(4) == 0x0D or uint8(4) == 0x0A)
        )
}
