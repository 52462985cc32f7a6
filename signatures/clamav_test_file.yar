// ClamAV's harmless test program clam.exe, by its published SHA-256, and by the import names in it wherever they
// stand raw in another file. Provenance: README.md

import "hash"

rule ClamAV_Test_File : test
{
    meta:
        description = "ClamAV test file clam.exe"
        severity = "low"
        verdict = "infected"
        reference = "https://github.com/Cisco-Talos/clamav/blob/main/unit_tests/clamscan/allmatch_test.py"
        false_positives = "None: only this file, by its SHA-256; it is harmless and meant to be found"
    condition:
        filesize == 544 and
        hash.sha256(0, filesize) == "71e7b604d18aefd839e51a39c88df8383bb4c071dc31f87f00a2b5df580d4495"
}

rule ClamAV_Test_File_Imports : test
{
    meta:
        description = "ClamAV test file clam.exe, stored inside another file"
        severity = "low"
        verdict = "infected"
        reference = "https://github.com/Cisco-Talos/clamav/blob/main/unit_tests/clamscan/allmatch_test.py"
        false_positives = "Texts and rule files that hold the import names in this order with their zero bytes"
    strings:
        // KERNEL32.DLL 00 00 ExitProcess 00 USER32.DLL 00 CLAMessageBoxA
        $imports = {
            4B 45 52 4E 45 4C 33 32 2E 44 4C 4C 00 00 45 78 69 74 50 72 6F 63 65 73 73 00
            55 53 45 52 33 32 2E 44 4C 4C 00 43 4C 41 4D 65 73 73 61 67 65 42 6F 78 41
        }
    condition:
        $imports and not ClamAV_Test_File
}
