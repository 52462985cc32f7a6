// Programs that a page or a disk image carries past a gateway that only looks at the outside.

rule HTML_Smuggling : smuggling
{
    meta:
        description = "A page that makes a program or archive out of a text in it and offers it as a download"
        severity = "high"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1027/006/"
        false_positives = "Pages that offer a spreadsheet or archive they have built in; report generators"
    strings:
        $save = "createObjectURL("
        $zip = "UEsDB"
        $program = "TVqQAAMA"
        $program_delphi = "TVpQAAIA"
        $rar = "UmFyIRoH"
        $shortcut = "TAAAAAEUAgAAAA"
    condition:
        $save and any of ($zip, $program*, $rar, $shortcut)
}

rule Disk_Image_Program : smuggling
{
    meta:
        description = "A small disk image (ISO 9660) with a program, script or shortcut in its first folder"
        severity = "medium"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1553/005/"
        false_positives = "Driver disks and firmware updates; images over 32 MiB are no match, for they are products"
    condition:
        // ECMA-119 8.4: "CD001" in the volume descriptor at 0x8000, in it at 156 the record of the root: where, how long.
        filesize < 32MB and uint32be(0x8001) == 0x43443030 and uint8(0x8005) == 0x31 and
        uint32(0x80A6) > 0 and
        for any i in (0..2040) : (
            uint32be(uint32(0x809E) * 2048 + i) == 0x2E455845 or // .EXE
            uint32be(uint32(0x809E) * 2048 + i) == 0x2E4C4E4B or // .LNK
            uint32be(uint32(0x809E) * 2048 + i) == 0x2E534352 or // .SCR
            uint32be(uint32(0x809E) * 2048 + i) == 0x2E424154 or // .BAT
            uint32be(uint32(0x809E) * 2048 + i) == 0x2E434D44 or // .CMD
            uint32be(uint32(0x809E) * 2048 + i) == 0x2E564253 or // .VBS
            uint32be(uint32(0x809E) * 2048 + i) == 0x2E4A533B or // .JS;
            uint32be(uint32(0x809E) * 2048 + i) == 0x2E485441    // .HTA
        )
}

rule Disk_Image_Member : smuggling
{
    meta:
        description = "A program, script or shortcut inside a disk image that was sent along (ISO, IMG, VHD, VHDX)"
        severity = "medium"
        verdict = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1553/005/"
        false_positives = "Driver disks that are sent by mail"
    condition:
        extension != "" and
        ".bat.cmd.com.cpl.exe.hta.js.jse.lnk.msi.pif.ps1.scr.vbe.vbs.wsf" contains extension and
        filepath matches /\.(iso|img|vhdx?)\//i
}
