"""From a finished run to answers elsewhere: export, the runtime without torch, predictions by the thousand."""
