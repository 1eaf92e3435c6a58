"""An oracle operator: watch → fetch → detect → decide → attest → submit, one file each, meeting only in
service.py.
"""
