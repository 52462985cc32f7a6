// File names that are made to be taken for something else. They look at the declared name only, not at the content.

rule Name_Double_Extension : name
{
    meta:
        description = "The name ends like a program or script behind the ending of a document or picture"
        severity = "medium"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1036/007/"
        false_positives = "Build products that are named after their source, e.g. manual.pdf.exe of a self-extractor"
    condition:
        // The ending is looked at first: almost every name is done with there.
        (
            ".bat.chm.cmd.com.cpl.exe.hta.img.iso.jar.jse.lnk.msi.pif.ps1.scr.url.vbe.vbs.vhd.wsf.wsh" contains extension or
            extension endswith " " or extension endswith "."
        ) and extension != "" and
        (
            filename matches /\.(pdf|docx?|xlsx?|pptx?|rtf|odt|ods|jpe?g|png|gif|bmp|txt|csv|mp[34]|avi|eml|msg)[ ._]*\.(exe|scr|com|pif|bat|cmd|jse|vbs|vbe|wsf|wsh|hta|lnk|ps1|cpl|msi|jar|iso|img|vhd|chm|url)[ .]*$/i
            or filename matches /\.(pdf|docx?|xlsx?|pptx?|jpe?g|png|gif)[ ._]*\.js[ .]*$/i
            or filename matches / {8}\.(exe|scr|com|pif|bat|cmd|jse?|vbs|vbe|wsf|hta|lnk|ps1|cpl|msi)[ .]*$/i
        )
}

rule Name_Right_To_Left : name
{
    meta:
        description = "The name holds a character that turns the direction of writing, so that its ending is shown elsewhere"
        severity = "high"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1036/002/"
        false_positives = "Names in Arabic or Hebrew need marks (U+200E, U+200F), which are not meant here, not overrides"
    condition:
        (
            filename contains "\xe2\x80" and
            (
                filename contains "\xe2\x80\xae" or filename contains "\xe2\x80\xad" or
                (
                    filename contains "\xe2\x80\xab" and
                    extension matches /^\.(exe|scr|com|pif|bat|cmd|jse?|vbs|vbe|wsf|hta|lnk|ps1|cpl|msi)$/
                )
            )
        )
}

rule Name_Class_Identifier : name
{
    meta:
        description = "The name ends with a class identifier, which Windows hides and obeys"
        severity = "medium"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1036/"
        false_positives = "Folders of Windows itself, which nobody sends"
    condition:
        extension startswith ".{" and extension matches /^\.\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}$/
}
