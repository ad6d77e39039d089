// Written by tools/web_facts.py from the Python code: do not edit.

export const CLASSES = [
  {
    "code": "akiec",
    "name": "Actinic keratosis / intraepithelial carcinoma",
    "malignant": true
  },
  {
    "code": "bcc",
    "name": "Basal cell carcinoma",
    "malignant": true
  },
  {
    "code": "bkl",
    "name": "Benign keratosis-like lesion",
    "malignant": false
  },
  {
    "code": "df",
    "name": "Dermatofibroma",
    "malignant": false
  },
  {
    "code": "mel",
    "name": "Melanoma",
    "malignant": true
  },
  {
    "code": "nv",
    "name": "Melanocytic nevus",
    "malignant": false
  },
  {
    "code": "vasc",
    "name": "Vascular lesion",
    "malignant": false
  }
];

export const QUESTIONS = {
  "malignant": [
    0,
    1,
    4
  ],
  "melanoma": [
    4
  ]
};

export const QUALITY_LIMITS = {
  "size_px": {
    "low": 100,
    "high": null,
    "too_low": "The picture has too few pixels to show the structures of a lesion.",
    "too_high": ""
  },
  "blur": {
    "low": null,
    "high": 0.63,
    "too_low": "",
    "too_high": "The picture is blurred."
  },
  "brightness": {
    "low": 80,
    "high": 215,
    "too_low": "The picture is too dark.",
    "too_high": "The picture is too bright."
  },
  "dark_share": {
    "low": null,
    "high": 0.06,
    "too_low": "",
    "too_high": "Large parts of the picture are black."
  },
  "bright_share": {
    "low": null,
    "high": 0.03,
    "too_low": "",
    "too_high": "Parts of the picture are washed out or reflect the light."
  },
  "contrast": {
    "low": 0.09,
    "high": null,
    "too_low": "No lesion stands out from its surroundings.",
    "too_high": ""
  },
  "redness": {
    "low": 0.985,
    "high": 2.2,
    "too_low": "Parts of the picture are not of the colour of skin.",
    "too_high": "The picture is far too red."
  },
  "green_to_blue": {
    "low": 0.74,
    "high": 1.55,
    "too_low": "The colours have a blue cast.",
    "too_high": "The colours have a yellow cast."
  },
  "texture": {
    "low": null,
    "high": 13.5,
    "too_low": "",
    "too_high": "The picture has more edges or noise than skin under a dermatoscope."
  }
};

export const HEAT_COLORS = [
  [
    46.0,
    20.0,
    96.0
  ],
  [
    44.0,
    84.0,
    152.0
  ],
  [
    36.0,
    140.0,
    148.0
  ],
  [
    104.0,
    190.0,
    104.0
  ],
  [
    250.0,
    226.0,
    70.0
  ]
];
